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
from tasks.answers import compare, final_answer, render_answer
from tasks.config import REWARD_NAMES, AnswerForm, TaskSettings
from tasks.math_check import is_equal, warm_up
from tasks.reasoning_gym_scorer import reasoning_gym_check
from tasks.rewards import RewardInput, WeightedPart, built_in, combine
from tasks.users_scorer import forgiving_reward, forgiving_scorer, part_names, users_reward, users_scorer

CorrectnessCheck = Callable[[Answer, str | None], bool | None]


@dataclass(frozen=True, slots=True)
class Judge:
    """check: (answer, final answer) -> right, wrong, or None when it cannot tell. notes: of the answer under way."""

    form: AnswerForm
    parts: tuple[WeightedPart, ...]
    check: CorrectnessCheck
    notes: list[str] = field(default_factory=list)

    def judge(self, answer: Answer) -> Scored | None:
        final = final_answer(answer.text, self.form, answer.truncated)
        self.notes.clear()
        correct = self.check(answer, final)
        if correct is None:
            return None
        scored = combine(RewardInput(answer, self.form, final, correct), self.parts)
        return replace(scored, note=self.notes[0]) if self.notes else scored

    def give_up(self, answer: Answer) -> Scored:
        """The answer as wrong: it ended the processes that judged it, and the reference's own answer does not.

        Raises where that one cannot be judged either, or where there is none: then nobody knows whose fault it is.
        """
        if not answer.problem.answer:
            raise ValueError("the problem has no reference answer to try")
        known = render_answer(answer.problem.answer, self.form)
        self.check(replace(answer, text=known, truncated=False), final_answer(known, self.form))
        final = final_answer(answer.text, self.form, answer.truncated)
        return combine(RewardInput(answer, self.form, final, False), self.parts)


def quick_judge(settings: TaskSettings) -> Judge | None:
    """None where the settings name users' code, which never runs in the parent process."""
    if settings.scorer is not None or any(part.name not in REWARD_NAMES for part in settings.rewards):
        return None
    check = _wrong_if_missing if settings.kind == "reasoning_gym" else _exact_check
    return Judge(settings.answer_form, _parts(settings, []), check)


def full_judge(settings: TaskSettings) -> Judge:
    """Raises ConfigError for users' code that cannot be loaded."""
    notes: list[str] = []
    return Judge(settings.answer_form, _parts(settings, notes), _full_check(settings, notes), notes)


def _parts(settings: TaskSettings, notes: list[str]) -> tuple[WeightedPart, ...]:
    names = part_names(settings)
    return tuple(
        WeightedPart(
            names[part.name],
            part.weight,
            built_in(part.name)
            if part.name in REWARD_NAMES
            else forgiving_reward(users_reward(part.name), settings.answer_form, notes.append),
        )
        for part in settings.rewards
    )


def _full_check(settings: TaskSettings, notes: list[str]) -> CorrectnessCheck:
    if settings.scorer is not None:
        return forgiving_scorer(users_scorer(settings.scorer), settings.answer_form, notes.append)
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
