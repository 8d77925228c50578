"""A task with finitely many problems, and how any task's candidates are split and put in order.

candidates -> worked examples | held out (by hash) | training problems -> one shuffle per epoch
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from contracts.errors import DataError
from contracts.ports import Environment
from contracts.problem import ChatMessage, Problem
from tasks.config import TaskSettings
from tasks.environment import make_environment
from tasks.prompts import WorkedExample, build_messages
from tasks.question_hash import is_held_out, question_hash


@dataclass(frozen=True, slots=True)
class Candidate:
    """A problem before its prompt exists.

    split_question: the text whose hash decides the side of the split; twins share it. reasoning: for worked examples.
    chat: the prompt's own messages, where the data holds them.
    """

    problem_id: str
    question: str
    answer: str
    split_question: str
    reasoning: str = ""
    metadata: str = ""
    chat: tuple[ChatMessage, ...] = ()

    def as_problem(self, settings: TaskSettings, examples: Sequence[WorkedExample]) -> Problem:
        messages = build_messages(self.question, settings, examples, self.chat)
        return Problem(self.problem_id, self.question, self.answer, messages, self.metadata)

    def as_example(self) -> WorkedExample:
        return WorkedExample(self.question, self.answer, self.reasoning)


@dataclass(frozen=True, slots=True)
class Split:
    """Three disjoint lists. Training problems and examples never share a `split_question` with held-out ones."""

    examples: tuple[Candidate, ...]
    train: tuple[Candidate, ...]
    held_out: tuple[Candidate, ...]


def split_by_hash(candidates: Sequence[Candidate], share: float, num_examples: int) -> Split:
    """Held-out problems by the hash of their question; examples come from the training side.

    Every list is in the order of the hashes: its first n are a fair sample, whatever the seed and the source's order.
    """
    held = [c for c in candidates if is_held_out(c.split_question, share)]
    rest = [c for c in candidates if not is_held_out(c.split_question, share)]
    return with_held_out(rest, held, num_examples)


def with_held_out(train: Sequence[Candidate], held_out: Sequence[Candidate], num_examples: int) -> Split:
    """The same with held-out problems given: questions that occur among them leave the training side."""
    held_hashes = {question_hash(c.split_question) for c in held_out}
    ordered = sorted(
        (c for c in train if question_hash(c.split_question) not in held_hashes),
        key=lambda c: question_hash(c.question),
    )
    held = sorted(held_out, key=lambda c: question_hash(c.question))
    taken = {question_hash(c.split_question) for c in ordered[:num_examples]}
    rest = [c for c in ordered[num_examples:] if question_hash(c.split_question) not in taken]
    return Split(tuple(ordered[:num_examples]), tuple(rest), tuple(held))


class ProblemList:
    """Implements contracts.ports.Task over a split. Raises DataError for a split without training problems.

    num_train limits the training problems to the first ones in the order of their hashes: the same for every seed.
    notes: what a person should know of the data, a sentence each.
    """

    def __init__(self, split: Split, settings: TaskSettings, source: str, notes: Sequence[str] = ()) -> None:
        self._settings, self._source, self._split = settings, source, split
        self.notes = tuple(notes)
        self._train = split.train[: settings.num_train]
        self._examples = tuple(candidate.as_example() for candidate in split.examples)
        self._order: tuple[int, list[int]] = (-1, [])
        if not self._train:
            raise DataError(
                f"{source}: no training problems are left after {len(split.held_out)} held-out ones and "
                f"{len(split.examples)} worked examples. {_way_out(settings, split)}"
            )

    @property
    def num_train(self) -> int | None:
        return len(self._train)

    def train_problem(self, index: int) -> Problem:
        epoch, position = divmod(index, len(self._train))
        if self._order[0] != epoch:
            self._order = (epoch, epoch_order(len(self._train), self._settings.seed, epoch))
        return self._train[self._order[1][position]].as_problem(self._settings, self._examples)

    @property
    def num_held_out(self) -> int:
        return len(self._split.held_out)

    def held_out(self, n: int) -> list[Problem]:
        return [candidate.as_problem(self._settings, self._examples) for candidate in self._split.held_out[:n]]

    def environment(self, problem: Problem) -> Environment:
        return make_environment(self._settings, problem)


def _way_out(settings: TaskSettings, split: Split) -> str:
    """Of a split that leaves nothing to train on."""
    if settings.kind == "file" and settings.held_out_path:
        return (
            f"Every question that {settings.held_out_path} has too leaves the training side: give other training problems, or "
            "--unset task.held_out_path, and a share of these is held out"
        )
    if settings.kind == "file" and settings.hub_held_out_split:
        return "Every question of task.hub_held_out_split leaves the training side: name another split, or --unset it"
    if split.examples and not split.held_out:
        return "Give more problems or lower task.worked_examples"
    return "Give more problems or lower task.held_out_share"


def epoch_order(size: int, seed: int, epoch: int) -> list[int]:
    """A permutation of range(size), a new one for every epoch, the same in every process."""
    order = list(range(size))
    random.Random(f"{seed}/{epoch}").shuffle(order)
    return order
