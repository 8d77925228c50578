"""Known good and known bad answers through the real tokenizer and the real verifier, before any training.

problems -> reference answer in the answer form   must be correct
         -> wrong, empty, malformed, cut off      must not be
         -> prompts                               must fit
         -> environments                          must reply to all of it
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from contracts.errors import DataError, LoadError
from contracts.ports import Answer, Task, Tokenizer, Verifier
from contracts.problem import Problem
from contracts.verdict import SCORER, Scored, Verdict
from loading.users_code import fault_in, kind_of
from tasks.answers import parse_number, render_answer
from tasks.check_environment import step_environments
from tasks.config import TaskSettings
from tasks.plain_writing import last_boxed
from tasks.prompts import PromptLengths
from tasks.task_data import TaskData, look_through

GOOD = "good"
MALFORMED = "%$ lorem ipsum <answer \\boxed{"
UNKNOWN = "\ufffd"
NO_ANSWER = "no idea"
NUM_ANSWER_TOKENS, MAX_NEW_TOKENS = 16, 64
NUM_STEPPED = 3
"""Problems whose environments are stepped."""
ENOUGH_S = 30.0
"""Of judging: a scorer that hangs is found out with the first problem, and all of them would take minutes."""


@dataclass(frozen=True, slots=True)
class JudgedAnswer:
    """kind: good | wrong | empty | malformed | truncated."""

    problem: Problem
    kind: str
    text: str
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class TaskCheckReport:
    """failures: one line per thing that must be mended before training; empty when the task is sound.

    prompt_lengths: None where a prompt was too long. without_reference: problems that have no reference answer,
    so that nothing known to be good could be tried. untried: problems left out, as the verifier took `ENOUGH_S` for the others.
    """

    data: TaskData
    problems: tuple[Problem, ...]
    judged: tuple[JudgedAnswer, ...]
    prompt_lengths: PromptLengths | None
    without_reference: int
    failures: tuple[str, ...]
    untried: int = 0

    @property
    def faults(self) -> tuple[str, ...]:
        """A sentence for whatever failed over answers of the known kinds, each with how many and the first error: a policy
        writes such answers too, and a run does not end for them."""
        scored = [judged.verdict for judged in self.judged if isinstance(judged.verdict, Scored)]
        failed = Counter(name for verdict in scored for name in verdict.failed)
        return tuple(
            f"{'the scorer' if name == SCORER else f'reward part {name}'} failed over {count} of {len(scored)} answers, "
            f"{'which count as wrong' if name == SCORER else 'and counts 0 there'}: "
            f"{_first_error(scored, name)}"
            for name, count in sorted(failed.items())
        )

    @property
    def ok(self) -> bool:
        return not self.failures


def _first_error(scored: Iterable[Scored], name: str) -> str:
    """A verdict has the words of what failed first over it alone."""
    words = (verdict.note for verdict in scored if verdict.failed[:1] == (name,) and verdict.note)
    return next(words, "it hung, ended its process, or failed behind another part")


def check_task(
    task: Task,
    verifier: Verifier,
    tokenizer: Tokenizer,
    settings: TaskSettings,
    num_problems: int = 16,
    num_held_out: int | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> TaskCheckReport:
    """Answers the first training and held-out problems, `num_problems` each; steps the environment of a few; looks at all
    the data that a run with `num_held_out` (unset: num_problems) would. Raises DataError where there is none, LoadError
    for a chat template that leaves a question out."""
    data = look_through(task, num_problems if num_held_out is None else num_held_out)
    train, held_out = list(data.train[:num_problems]), list(data.held_out[:num_problems])
    problems = [*train, *held_out]
    judged, tried = _judge(problems, verifier, tokenizer, settings, clock)
    lengths, complaints = _lengths(data, tokenizer, settings)
    complaints += _once(complaint for one in judged if (complaint := _complaint(one)) is not None)
    complaints += data.faults
    complaints += _once(step_environments(task, problems[:NUM_STEPPED], settings))
    without = sum(not problem.answer for problem in problems)
    untried = len(problems) - len(tried)
    return TaskCheckReport(data, tuple(tried), judged, lengths, without, tuple(complaints), untried)


def _judge(
    problems: Sequence[Problem],
    verifier: Verifier,
    tokenizer: Tokenizer,
    settings: TaskSettings,
    clock: Callable[[], float],
) -> tuple[tuple[JudgedAnswer, ...], list[Problem]]:
    """Answers and the problems that they are of: as many as a verifier judges in `ENOUGH_S`."""
    started = clock()
    judged: list[JudgedAnswer] = []
    tried: list[Problem] = []
    for problem in problems:
        if tried and clock() - started > ENOUGH_S:
            break
        tried.append(problem)
        known = [
            (kind, replace(answer, text=as_read(tokenizer, answer.text)))
            for kind, answer in _known_answers(problem, settings)
        ]
        verdicts = verifier.verify([answer for _, answer in known])
        judged += [
            JudgedAnswer(problem, kind, answer.text, verdict)
            for (kind, answer), verdict in zip(known, verdicts, strict=True)
        ]
    return tuple(judged), tried


def _once(complaints: Iterable[str]) -> list[str]:
    """One for each fault of users' code, which is the same whatever the problem; all others as they are."""
    return list({kind_of(fault_in(complaint)): complaint for complaint in complaints}.values())


def as_read(tokenizer: Tokenizer, text: str) -> str:
    """What a judge would read if the policy wrote this text: through tokens and back, after what the chat template has
    already opened. Characters that the scripted engine's alphabet lacks stay: no policy is asked for them."""
    read = tokenizer.decode(tokenizer.encode(text.removeprefix(tokenizer.opening)))
    return tokenizer.opening + read if UNKNOWN not in read else text


def _known_answers(problem: Problem, settings: TaskSettings) -> list[tuple[str, Answer]]:
    form, reference = settings.answer_form, problem.answer
    good = render_answer(reference, form)
    bad = [("empty", "", False), ("malformed", MALFORMED, False), ("malformed", render_answer(NO_ANSWER, form), False)]
    if settings.kind != "reasoning_gym":  # many of its problems have more right answers than the one that is known
        bad = [("wrong", render_answer(_wrong(last_boxed(reference) or reference), form), False), *bad]
    if reference:
        bad = [(GOOD, good, False), *bad, ("truncated", good[:-1], True)]
    return [
        (kind, Answer(problem, text, NUM_ANSWER_TOKENS, MAX_NEW_TOKENS, truncated)) for kind, text, truncated in bad
    ]


def _wrong(reference: str) -> str:
    number = parse_number(reference)
    return str(number.value + 1) if number is not None else f"not {reference}"


def _complaint(judged: JudgedAnswer) -> str | None:
    """None where the verdict is as it must be. Any invalid verdict is a complaint: these answers are harmless."""
    where = f"problem {judged.problem.problem_id}, {judged.kind} answer {judged.text[:60]!r}"
    if not isinstance(judged.verdict, Scored):
        return f"{where}: could not be judged: {judged.verdict.reason}"
    if judged.verdict.correct == (judged.kind == GOOD):
        return None
    if judged.kind == GOOD:
        return (
            f"{where}: judged wrong. Does task.answer_form fit the reference answers of this task, and is this what the "
            "tokenizer makes of the answer?"
        )
    return (
        f"{where}: judged correct. The scorer is too lenient for training: set task.scorer or another task.answer_form"
    )


def _lengths(data: TaskData, tokenizer: Tokenizer, settings: TaskSettings) -> tuple[PromptLengths | None, list[str]]:
    try:
        return data.check_prompts(tokenizer, settings.max_prompt_tokens), []
    except LoadError:  # the template's fault, not the data's: nothing else that is said here would mean anything
        raise
    except DataError as error:
        return None, [str(error)]
