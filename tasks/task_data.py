"""What a task's data comes to: how much there is, whether all of it is fit to train on, and whether it is the same as before.

    task -> every problem that a run would use -> TaskData (counts, notes, faults) and the hash that a resumed run must match

`memr check-task` and `memr train` both look here, so they say the same.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from contracts.ports import Task, Tokenizer
from contracts.problem import Problem
from tasks.environment import SingleTurn
from tasks.prompt_content import refuse_lost_reply, refuse_same_chat
from tasks.prompts import PromptLengths, check_prompt_lengths

NUM_OF_ENDLESS_TASK = 512
"""Training problems that are looked at where there is no end of them."""
HASHED_OF_ENDLESS_TASK = 256
HASHED_HELD_OUT = 64
"""Of runs up to commit be586f9 and some after it, where a task does not say how many there are."""


@dataclass(frozen=True, slots=True)
class TaskData:
    """num_train: None without end. train: all of it, or the first ones. notes: one sentence each, printed when a run starts.
    faults: what must be mended first."""

    num_train: int | None
    train: tuple[Problem, ...]
    held_out: tuple[Problem, ...]
    num_held_out_asked: int
    notes: tuple[str, ...]
    faults: tuple[str, ...]
    several_turns: bool = False
    """A rollout may go on after the policy's first turn."""

    @property
    def counts(self) -> str:
        train = "without end" if self.num_train is None else str(self.num_train)
        return f"{train} training problems, {len(self.held_out)} held-out ones"

    def check_prompts(self, tokenizer: Tokenizer, max_prompt_tokens: int) -> PromptLengths:
        """Of all of them. Raises DataError for one that is too long, LoadError for a chat template that leaves out a
        question, or what an environment replies."""
        if self.several_turns:
            refuse_lost_reply(tokenizer)
        return check_prompt_lengths([*self.train, *self.held_out], tokenizer, max_prompt_tokens)


def look_through(task: Task, num_held_out: int) -> TaskData:
    """num_held_out: as many as an evaluation asks for. Raises DataError and ConfigError for data that cannot be read,
    LoadError for a task that puts two questions in the same words."""
    num_train = task.num_train
    count = NUM_OF_ENDLESS_TASK if num_train is None else num_train
    train = tuple(task.train_problem(i) for i in range(count))
    held_out = tuple(task.held_out(num_held_out))
    several_turns = any(not isinstance(task.environment(problem), SingleTurn) for problem in train[:1])
    if not several_turns:
        refuse_same_chat([*train, *held_out])
    told: Sequence[str] = getattr(task, "notes", ())
    notes, faults = (*told, *too_few(len(held_out), num_held_out)), tuple(_faults(train, held_out))
    return TaskData(num_train, train, held_out, num_held_out, notes, faults, several_turns)


def too_few(held_out: int, wanted: int, asked: str = "eval.problems =") -> list[str]:
    """A note where fewer held-out problems are there than were asked for, nothing otherwise. asked: by what."""
    if held_out >= wanted:
        return []
    way_out = "For more raise task.held_out_share or give task.held_out_path more rows"
    if not held_out:
        return [f"there are no held-out problems, so accuracy is not measured ({asked} {wanted}). {way_out}"]
    return [f"{held_out} held-out problems are there, fewer than {asked} {wanted}: all are used. {way_out}"]


def _faults(train: Sequence[Problem], held_out: Sequence[Problem]) -> list[str]:
    shared = {problem.problem_id for problem in train} & {problem.problem_id for problem in held_out}
    found = [f"problem {name} is both a training and a held-out problem" for name in sorted(shared)]
    questions: dict[str, Problem] = {}
    for problem in (*train, *held_out):
        first = questions.setdefault(problem.problem_id, problem)
        if first.messages != problem.messages and problem.problem_id not in shared:
            found.append(f"problem_id {problem.problem_id} names two problems; ids must be unique: memory goes by them")
    return list(dict.fromkeys(found))


def data_hash(task: Task, data: TaskData, like: str | None = None) -> str:
    """SHA-256 hex over everything that a run trains on and is measured by, wherever it lies and however it is stored.

    Where a task does not say how many held-out problems there are, those that `data` asked for are covered, and their number
    stands before the digest, "200:"; like: an earlier hash of the same task, whose number counts instead (HASHED_HELD_OUT
    where it names none).
    """
    digest = hashlib.sha256(f"{data.num_train}".encode())
    _add(digest, data.train if data.num_train is not None else data.train[:HASHED_OF_ENDLESS_TASK])
    known: int | None = getattr(task, "num_held_out", None)
    number, prefix = (known, "") if known is not None else _number_covered(data, like)
    _add(digest, _held_out(task, data, number))
    return f"{prefix}{digest.hexdigest()}"


def part_facts(data: TaskData) -> dict[str, dict[str, Any]]:
    """Of either side the number of problems and a SHA-256 hex over them: what a run's manifest keeps, so that it can be told
    which side is another. asked: how many held-out problems were asked for."""
    sides = {"train": data.train, "held_out": data.held_out}
    facts: dict[str, dict[str, Any]] = {}
    for name, problems in sides.items():
        digest = hashlib.sha256()
        _add(digest, problems)
        facts[name] = {"problems": len(problems), "hash": digest.hexdigest()}
    facts["held_out"]["asked"] = data.num_held_out_asked
    return facts


def _number_covered(data: TaskData, like: str | None) -> tuple[int, str]:
    """How many held-out problems of a task without a number of its own, and how the hash says so."""
    if like is None:
        return data.num_held_out_asked, f"{data.num_held_out_asked}:"
    number, colon, _ = like.partition(":")
    return (int(number), f"{number}:") if colon and number.isdecimal() else (HASHED_HELD_OUT, "")


def _held_out(task: Task, data: TaskData, number: int) -> Sequence[Problem]:
    """What was made already where that is enough: the first ones are always the same."""
    if number <= data.num_held_out_asked or len(data.held_out) < data.num_held_out_asked:
        return data.held_out[:number]
    return task.held_out(number)


def _add(digest: "hashlib._Hash", problems: Iterable[Problem]) -> None:
    for problem in problems:
        content = [problem.problem_id, problem.question, problem.answer, problem.messages, problem.metadata]
        digest.update(json.dumps(content).encode())
