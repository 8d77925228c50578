"""Users' scorers and reward parts: what they may return, and what it means when they raise.

    raises on an answer -- and works on the reference answer -> the answer is what it cannot read: wrong, the part 0, a note
                        -- and raises on that too            -> a bug: the answer is invalid, the reason names file and line

`users_scorer` and `users_reward` raise UsersCodeError, which says so; `forgiving_scorer` and `forgiving_reward` tell the two
cases apart.
"""

from collections.abc import Callable
from dataclasses import replace

from contracts.ports import Answer
from contracts.problem import Problem
from contracts.verdict import SCORER
from loading.dotted_path import load_dotted, short_name
from loading.users_code import UsersCodeError, call, expected_number, finite_number, plain, refused
from tasks.answers import final_answer, render_answer
from tasks.config import REWARD_NAMES, AnswerForm, TaskSettings
from tasks.rewards import RewardFunction, RewardInput

Scorer = Callable[[Answer, str | None], bool]
Note = Callable[[str, str], None]
"""Told what failed (SCORER or the part's name in metrics) and in which words."""


def users_scorer(path: str) -> Scorer:
    """Raises ConfigError where there is none; the scorer raises UsersCodeError."""
    what, scorer = f"task.scorer '{short_name(path)}'", load_dotted(path, "task.scorer")

    def judged(answer: Answer, final: str | None) -> bool:
        correct = plain(call(what, scorer, answer, final))
        if not isinstance(correct, bool):
            raise refused(what, scorer, correct, "True or False")
        return correct

    return judged


def users_reward(path: str) -> RewardFunction:
    """Raises ConfigError where there is none; the part raises UsersCodeError."""
    what, part = f"reward part '{short_name(path)}'", load_dotted(path, "task.rewards")

    def valued(inputs: RewardInput) -> float:
        value = call(what, part, inputs)
        number = finite_number(value)
        if number is None:
            raise refused(what, part, value, expected_number(value))
        return number

    return valued


def forgiving_scorer(scorer: Scorer, form: AnswerForm, note: Note) -> Scorer:
    """Wrong, with a note, where the scorer fails on this answer alone."""

    def check(answer: Answer, final: str | None) -> bool:
        try:
            return scorer(answer, final)
        except UsersCodeError as error:
            _raise_unless(_works(lambda: scorer(*_known_answer(answer.problem, answer, form))), answer, error)
            note(SCORER, str(error))
            return False

    return check


def forgiving_reward(name: str, part: RewardFunction, form: AnswerForm, note: Note) -> RewardFunction:
    """0, with a note, where the part fails on this answer alone. name: of the part in metrics."""

    def valued(inputs: RewardInput) -> float:
        try:
            return part(inputs)
        except UsersCodeError as error:
            _raise_unless(_works(lambda: part(on_reference(inputs.answer, form))), inputs.answer, error)
            note(name, str(error))
            return 0.0

    return valued


def part_names(settings: TaskSettings) -> dict[str, str]:
    """What each part is called in metrics and reports: without the folder of its file, unless two files share a name."""
    given = [part.name for part in settings.rewards]
    short = [name if name in REWARD_NAMES else short_name(name) for name in given]
    return {name: brief if short.count(brief) == 1 else name for name, brief in zip(given, short, strict=True)}


def on_reference(answer: Answer, form: AnswerForm) -> RewardInput:
    """What a part would be given for the reference's own answer."""
    good, final = _known_answer(answer.problem, answer, form)
    return RewardInput(good, form, final, True)


def _known_answer(problem: Problem, like: Answer, form: AnswerForm) -> tuple[Answer, str | None]:
    text = render_answer(problem.answer, form)
    return replace(like, text=text, truncated=False), final_answer(text, form)


def _works(judge: Callable[[], object]) -> bool:
    try:
        judge()
    except UsersCodeError:
        return False
    return True


def _raise_unless(works: bool, answer: Answer, error: UsersCodeError) -> None:
    """Without a reference nothing is known to be right, so the fault cannot be attributed to scorer or answer."""
    if not works or not answer.problem.answer:
        raise error
