"""From an answer to its score, twice: a quick judge that is bounded in time, and a full one for child processes.

    text -> final answer -> correct? -> weighted parts -> Scored

The quick judge knows built-in parts and the exact comparison alone, and says None where that is not enough. The
full judge runs whatever the settings name: math-verify, a generator's scorer, users' code. It may hang, and it raises
where it could judge no answer at all. What only this answer makes go wrong is a wrong answer: a check that raises is
tried on the reference's own answer, and where that is judged, the answer was at fault.

A user's scorer is `scorer(answer: Answer, final: str | None) -> bool`; a user's reward part is
`part(inputs: tasks.rewards.RewardInput) -> float`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from contracts.ports import Answer
from contracts.problem import Problem
from contracts.verdict import Scored
from tasks.answers import compare, final_answer, render_answer
from tasks.config import REWARD_NAMES, AnswerForm, TaskSettings
from tasks.dotted_path import load_dotted
from tasks.math_check import check_reference, is_equal
from tasks.reasoning_gym_scorer import reasoning_gym_check
from tasks.rewards import RewardFunction, RewardInput, WeightedPart, built_in, combine, finite

CorrectnessCheck = Callable[[Answer, str | None], bool | None]


@dataclass(frozen=True, slots=True)
class Judge:
    """check: (answer, final answer) -> right, wrong, or None when it cannot tell. can_judge: raises where the check
    could not even judge the problem's own reference. faults: what checks raised on answers that are wrong by it."""

    form: AnswerForm
    parts: tuple[WeightedPart, ...]
    check: CorrectnessCheck
    can_judge: Callable[[Problem], None] = lambda problem: None
    faults: list[str] = field(default_factory=list)

    def judge(self, answer: Answer) -> Scored | None:
        final = final_answer(answer.text, self.form, answer.truncated)
        correct = self.check(answer, final)
        return None if correct is None else self._scored(answer, final, correct)

    def give_up(self, answer: Answer) -> Scored:
        """The answer as wrong, its check having ended the process that ran it. Raises where the reference does too."""
        self.can_judge(answer.problem)
        return self._scored(answer, final_answer(answer.text, self.form, answer.truncated), False)

    def _scored(self, answer: Answer, final: str | None, correct: bool) -> Scored:
        return combine(RewardInput(answer, self.form, final, correct), self.parts)


def quick_judge(settings: TaskSettings) -> Judge | None:
    """None where the settings name users' code, which never runs in the parent process."""
    if settings.scorer is not None or any(part.name not in REWARD_NAMES for part in settings.rewards):
        return None
    check = _wrong_if_missing if settings.kind == "reasoning_gym" else _exact_check
    return Judge(settings.answer_form, _parts(settings, []), check)


def full_judge(settings: TaskSettings) -> Judge:
    """Raises ConfigError for users' code that cannot be loaded."""
    form, faults = settings.answer_form, list[str]()
    if settings.scorer is None and settings.kind != "reasoning_gym":
        is_equal("x + 1", "1 + x")  # loads the algebra system before any answer's clock runs
        return Judge(form, _parts(settings, faults), _math_check, _reference_is_readable, faults)
    check = _users_check(settings.scorer) if settings.scorer is not None else _generators_check(settings)
    can_judge = partial(_judges_the_known_answer, check, form)
    return Judge(form, _parts(settings, faults), _forgiving(check, can_judge, faults), can_judge, faults)


def _parts(settings: TaskSettings, faults: list[str]) -> tuple[WeightedPart, ...]:
    return tuple(
        WeightedPart(
            part.name,
            part.weight,
            built_in(part.name)
            if part.name in REWARD_NAMES
            else _forgiving_part(part.name, load_dotted(part.name, "task.rewards"), settings.answer_form, faults),
        )
        for part in settings.rewards
    )


def _forgiving(check: CorrectnessCheck, can_judge: Callable[[Problem], None], faults: list[str]) -> CorrectnessCheck:
    """The check, where what this answer alone makes it raise means wrong."""

    def forgiving(answer: Answer, final: str | None) -> bool | None:
        try:
            return check(answer, final)
        except Exception as error:  # noqa: BLE001  users' code and generators raise whatever they like
            _raise_unless(partial(can_judge, answer.problem), error)
            faults.append(_told(error))
            return False

    return forgiving


def _forgiving_part(name: str, part: RewardFunction, form: AnswerForm, faults: list[str]) -> RewardFunction:
    """A user's part, 0 where this answer alone makes it raise."""

    def forgiving(inputs: RewardInput) -> float:
        try:
            return finite(name, part(inputs))
        except Exception as error:  # noqa: BLE001
            good, final = _known_answer(inputs.answer.problem, form)
            _raise_unless(lambda: finite(name, part(RewardInput(good, form, final, True))), error)
            faults.append(_told(error))
            return 0.0

    return forgiving


def _raise_unless(judges_the_known_answer: Callable[[], object], error: Exception) -> None:
    """Raises the error where the known answer is not judged either: then no answer is at fault."""
    try:
        judges_the_known_answer()
    except Exception:  # noqa: BLE001
        raise error from None


def _known_answer(problem: Problem, form: AnswerForm) -> tuple[Answer, str | None]:
    """The reference in the answer form; no answer at all where there is no reference: every check must bear that."""
    text = render_answer(problem.answer, form) if problem.answer else ""
    return Answer(problem, text, 1, 1, False), final_answer(text, form)


def _judges_the_known_answer(check: CorrectnessCheck, form: AnswerForm, problem: Problem) -> None:
    check(*_known_answer(problem, form))


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:300]}"


def _generators_check(settings: TaskSettings) -> CorrectnessCheck:
    return reasoning_gym_check(settings.generator, settings.generator_params)


def _users_check(path: str) -> CorrectnessCheck:
    scorer = load_dotted(path, "task.scorer")

    def check(answer: Answer, final: str | None) -> bool:
        correct = scorer(answer, final)
        if not isinstance(correct, bool):
            raise TypeError(f"task.scorer '{path}' gave {correct!r}; it must return True or False")
        return correct

    return check


def _reference_is_readable(problem: Problem) -> None:
    check_reference(problem.answer)


def _math_check(answer: Answer, final: str | None) -> bool:
    return final is not None and is_equal(final, answer.problem.answer)


def _exact_check(answer: Answer, final: str | None) -> bool | None:
    return False if final is None else compare(final, answer.problem.answer)


def _wrong_if_missing(answer: Answer, final: str | None) -> bool | None:  # noqa: ARG001
    return False if final is None else None
