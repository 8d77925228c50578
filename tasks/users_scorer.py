"""Users' scorers and reward parts: what they may return, and what it means when they raise.

scorer raises on an answer  -- and judges the reference answer -> the answer is what it cannot read: wrong, with a note
                            -- and raises on that too          -> a bug: the answer is invalid, the reason names file and line
reward part raises, or returns what is no finite number        -> invalid, the same way
"""

from collections.abc import Callable

from contracts.ports import Answer
from tasks.answers import final_answer, render_answer
from tasks.config import REWARD_NAMES, AnswerForm, TaskSettings
from tasks.dotted_path import load_dotted, short_name
from tasks.rewards import RewardFunction, RewardInput
from tasks.users_code import UnreadableAnswerError, UsersCodeError, call, finite_number, plain, refused

Scorer = Callable[[Answer, str | None], bool]


def users_scorer(path: str, form: AnswerForm) -> Scorer:
    """Raises ConfigError where there is none; the scorer raises UsersCodeError, and UnreadableAnswerError for wrong."""
    what, scorer = f"task.scorer '{short_name(path)}'", load_dotted(path, "task.scorer")

    def judged(answer: Answer, final: str | None) -> bool:
        correct = plain(call(what, scorer, answer, final))
        if not isinstance(correct, bool):
            raise refused(what, scorer, correct, "True or False")
        return correct

    def check(answer: Answer, final: str | None) -> bool:
        try:
            return judged(answer, final)
        except UsersCodeError as error:
            if _reads_reference(judged, answer, form):
                raise UnreadableAnswerError(str(error)) from error
            raise

    return check


def _reads_reference(judged: Scorer, answer: Answer, form: AnswerForm) -> bool:
    """Whether the scorer works on what is known to be right, so that what failed it was the answer."""
    if not answer.problem.answer:
        return False
    text = render_answer(answer.problem.answer, form)
    try:
        judged(Answer(answer.problem, text, answer.num_tokens, answer.max_new_tokens, False), final_answer(text, form))
    except UsersCodeError:
        return False
    return True


def users_reward(path: str) -> RewardFunction:
    """Raises ConfigError where there is none; the part raises UsersCodeError."""
    what, part = f"reward part '{short_name(path)}'", load_dotted(path, "task.rewards")

    def valued(inputs: RewardInput) -> float:
        value = call(what, part, inputs)
        number = finite_number(value)
        if number is None:
            raise refused(what, part, value, "a finite number")
        return number

    return valued


def part_names(settings: TaskSettings) -> dict[str, str]:
    """What each part is called in metrics and reports: without the folder of its file, unless two files share a name."""
    given = [part.name for part in settings.rewards]
    short = [name if name in REWARD_NAMES else short_name(name) for name in given]
    return {name: brief if short.count(brief) == 1 else name for name, brief in zip(given, short, strict=True)}
