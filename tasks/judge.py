"""From an answer to its score, twice: a quick judge that is bounded in time, and a full one for child processes.

    text -> final answer -> correct? -> weighted parts -> Scored

The quick judge knows built-in parts and the exact comparison alone, and says None where that is not enough. The
full judge runs whatever the settings name: math-verify, a generator's scorer, users' code. It may raise and hang.

Users' code (users_scorer.py): a scorer is `scorer(answer: Answer, final: str | None) -> bool`, a reward part is
`part(inputs: tasks.rewards.RewardInput) -> float`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from contracts.ports import Answer
from contracts.verdict import Scored
from tasks.answers import compare, final_answer
from tasks.config import REWARD_NAMES, AnswerForm, TaskSettings
from tasks.math_check import is_equal, warm_up
from tasks.reasoning_gym_scorer import reasoning_gym_check
from tasks.rewards import RewardInput, WeightedPart, built_in, combine
from tasks.users_scorer import (
    Note,
    forgiving_reward,
    forgiving_scorer,
    on_reference,
    part_names,
    users_reward,
    users_scorer,
)

CorrectnessCheck = Callable[[Answer, str | None], bool | None]


Fault = tuple[str, str]
"""What failed over an answer (SCORER or a part's name), and in which words."""


@dataclass(frozen=True, slots=True)
class Judge:
    """check: (answer, final answer) -> right, wrong, or None when it cannot tell. faults: of the answer under way.
    users_parts: names of the parts that are users' code."""

    form: AnswerForm
    parts: tuple[WeightedPart, ...]
    check: CorrectnessCheck
    faults: list[Fault] = field(default_factory=list)
    users_parts: frozenset[str] = frozenset()

    def judge(self, answer: Answer, begins: Callable[[str], None] = lambda _: None) -> Scored | None:
        """begins: told the name of each part of users' code before it runs, so that who waits knows what hangs."""
        final = final_answer(answer.text, self.form, answer.truncated)
        self.faults.clear()
        correct = self.check(answer, final)
        if correct is None:
            return None
        parts = [self._announced(part, begins) for part in self.parts]
        return self._told(combine(RewardInput(answer, self.form, final, correct), parts))

    def give_up(self, answer: Answer, ended_in: str, begins: Callable[[str], None] = lambda _: None) -> Scored:
        """The verdict on an answer that ended the processes which judged it, where the reference's own answer does not.

        ended_in: what they were at. A part of users' code then counts 0 and the rest stands; where the scorer ended them, the
        answer is wrong. Raises where the reference cannot be judged either, or where there is none: then it is unknown whose
        fault it is.
        """
        if not answer.problem.answer:
            raise ValueError("the problem has no reference answer to try")
        self.faults.clear()
        final = final_answer(answer.text, self.form, answer.truncated)
        tried = on_reference(answer, self.form)
        if ended_in in self.users_parts:
            self._part(ended_in).function(tried)
            correct = bool(self.check(answer, final))
        else:
            self.check(tried.answer, tried.final)
            correct = False
        self.faults.append((ended_in, ""))
        left = [self._announced(part, begins, without=ended_in) for part in self.parts]
        return self._told(combine(RewardInput(answer, self.form, final, correct), left))

    def _told(self, scored: Scored) -> Scored:
        failed = tuple(dict.fromkeys(name for name, _ in self.faults))
        return replace(scored, note=next((words for _, words in self.faults if words), ""), failed=failed)

    def _part(self, name: str) -> WeightedPart:
        return next(part for part in self.parts if part.name == name)

    def _announced(self, part: WeightedPart, begins: Callable[[str], None], without: str = "") -> WeightedPart:
        def announced(inputs: RewardInput) -> float:
            begins(part.name)
            return part.function(inputs)

        if part.name == without and part.name in self.users_parts:
            return replace(part, function=lambda _: 0.0)
        return replace(part, function=announced) if part.name in self.users_parts else part


def quick_judge(settings: TaskSettings) -> Judge | None:
    """None where the settings name users' code, which never runs in the parent process."""
    if settings.scorer is not None or any(part.name not in REWARD_NAMES for part in settings.rewards):
        return None
    check = _wrong_if_missing if settings.kind == "reasoning_gym" else _exact_check
    return Judge(settings.answer_form, _parts(settings, lambda *_: None), check)


def full_judge(settings: TaskSettings) -> Judge:
    """Raises ConfigError for users' code that cannot be loaded."""
    faults: list[Fault] = []

    def note(what: str, words: str) -> None:
        faults.append((what, words))

    names = part_names(settings)
    users_parts = frozenset(names[part.name] for part in settings.rewards if part.name not in REWARD_NAMES)
    parts, check = _parts(settings, note), _full_check(settings, note)
    return Judge(settings.answer_form, parts, check, faults, users_parts)


def _parts(settings: TaskSettings, note: Note) -> tuple[WeightedPart, ...]:
    names = part_names(settings)
    return tuple(
        WeightedPart(
            names[part.name],
            part.weight,
            built_in(part.name)
            if part.name in REWARD_NAMES
            else forgiving_reward(names[part.name], users_reward(part.name), settings.answer_form, note),
        )
        for part in settings.rewards
    )


def _full_check(settings: TaskSettings, note: Note) -> CorrectnessCheck:
    if settings.scorer is not None:
        return forgiving_scorer(users_scorer(settings.scorer), settings.answer_form, note)
    if settings.kind == "reasoning_gym":
        return reasoning_gym_check(settings.generator, settings.generator_params)
    warm_up()
    return _math_check


def _math_check(answer: Answer, final: str | None) -> bool:
    return final is not None and is_equal(final, answer.problem.answer)


def _exact_check(answer: Answer, final: str | None) -> bool | None:
    return False if final is None else compare(final, answer.problem.answer)


def _wrong_if_missing(answer: Answer, final: str | None) -> bool | None:  # noqa: ARG001
    return False if final is None else None
