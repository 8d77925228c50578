"""Problems of reasoning_gym's generators (over 100 of them), by name, without end or `num_train` of them.

Training, held-out and example entries come from three streams of random seeds that never meet, and each question
must besides fall on its side of the hash split: a generator that repeats itself cannot leak held-out questions.
"""

import itertools

from contracts.errors import DataError
from contracts.ports import Environment
from contracts.problem import Problem
from tasks.config import TaskSettings
from tasks.environment import make_environment
from tasks.problem_list import Candidate, epoch_order
from tasks.question_hash import is_held_out, question_hash
from tasks.reasoning_gym_entries import STREAM, Generator, carry

TRAIN_STREAM, HELD_OUT_STREAM, EXAMPLE_STREAM = range(3)
TRIES_PER_PROBLEM = 64
PATIENCE = 3000
SEED_STRIDE = 1_000_003


class ReasoningGymTask:
    """Implements contracts.ports.Task. Endless unless `num_train` is set; any index of the endless stream can be
    computed without those before it.

    Raises ConfigError for an unknown generator or parameter, DataError for one that gives too few questions.
    """

    def __init__(self, settings: TaskSettings) -> None:
        self._settings = settings
        self._generator = Generator(settings.generator, settings.generator_params)
        self._held_out: list[Candidate] = []
        self._searched_for = 0
        candidates = self._distinct(EXAMPLE_STREAM, settings.worked_examples)
        if not all(candidate.answer for candidate in candidates):
            raise DataError(
                f"reasoning_gym's '{settings.generator}' gives no reference answers, so it has no worked examples: "
                "set task.worked_examples = 0"
            )
        self._example_hashes = {question_hash(candidate.question) for candidate in candidates}
        self._examples = tuple(candidate.as_example() for candidate in candidates)
        self._train = self._first_distinct(settings.num_train) if settings.num_train else []

    @property
    def num_train(self) -> int | None:
        return self._settings.num_train

    def train_problem(self, index: int) -> Problem:
        if not self._train:
            return self._train_candidate(index).as_problem(self._settings, self._examples)
        epoch, position = divmod(index, len(self._train))
        order = epoch_order(len(self._train), self._settings.seed, epoch)
        return self._train[order[position]].as_problem(self._settings, self._examples)

    def held_out(self, n: int) -> list[Problem]:
        if self._searched_for < n:
            self._held_out, self._searched_for = self._distinct(HELD_OUT_STREAM, n, or_fewer=True), n
        return [candidate.as_problem(self._settings, self._examples) for candidate in self._held_out[:n]]

    def environment(self, problem: Problem) -> Environment:
        return make_environment(self._settings, problem)

    def _train_candidate(self, index: int) -> Candidate:
        """The first entry of the index's own stretch of seeds that is no held-out question and no worked example."""
        start = (self._settings.seed * SEED_STRIDE + index) * TRIES_PER_PROBLEM % STREAM
        for entry_index in range(start, start + TRIES_PER_PROBLEM):
            candidate = self._candidate(TRAIN_STREAM, entry_index)
            if self._on_side(TRAIN_STREAM, candidate) and question_hash(candidate.question) not in self._example_hashes:
                return candidate
        raise self._too_few("training", 1)

    def _first_distinct(self, n: int) -> list[Candidate]:
        found: dict[str, Candidate] = {}
        for index in range(n * TRIES_PER_PROBLEM):
            candidate = self._train_candidate(index)
            found.setdefault(candidate.problem_id, candidate)
            if len(found) == n:
                return list(found.values())
        raise self._too_few("training", n)

    def _distinct(self, stream: int, n: int, *, or_fewer: bool = False) -> list[Candidate]:
        """The first n different questions of the stream; gives up after a long stretch without a new one."""
        found: dict[str, Candidate] = {}
        patience = fruitless = int(PATIENCE / self._settings.split_share)
        for index in itertools.count():
            if len(found) == n:
                return list(found.values())
            if fruitless == 0:
                break
            candidate = self._candidate(stream, index)
            is_new = self._on_side(stream, candidate) and candidate.problem_id not in found
            fruitless = patience if is_new else fruitless - 1
            if is_new:
                found[candidate.problem_id] = candidate
        if or_fewer and found:
            return list(found.values())
        raise self._too_few("held-out" if stream == HELD_OUT_STREAM else "example", n)

    def _on_side(self, stream: int, candidate: Candidate) -> bool:
        return is_held_out(candidate.question, self._settings.split_share) == (stream == HELD_OUT_STREAM)

    def _candidate(self, stream: int, index: int) -> Candidate:
        entry = self._generator.entry(stream, index)
        question = entry["question"]
        return Candidate(
            problem_id=f"{self._settings.generator}/{question_hash(question)}",
            question=question,
            answer=str(entry["answer"] or ""),
            split_question=question,
            metadata=carry(stream, index, entry),
        )

    def _too_few(self, what: str, n: int) -> DataError:
        return DataError(
            f"reasoning_gym's '{self._settings.generator}' does not give {n} distinct {what} questions with "
            f"task.generator_params = {self._settings.generator_params}. Widen the parameters, change "
            "task.held_out_share, or ask for fewer (task.num_train, eval.problems)"
        )
