"""reasoning_gym's generators: the entry behind an index, and their own scoring of an answer.

An entry is named by (stream, index) and generated anew where it is needed, so that whatever the generator keeps
with it never has to be serialised. Generators are asked in blocks of BLOCK entries: some prepare all entries at
construction. Entry i of a stream has the random seed stream * STREAM + i, as the generators add index to seed.
"""

import difflib
import json
from collections.abc import Callable, Mapping
from typing import Any

from contracts.errors import ConfigError
from contracts.ports import Answer

BLOCK = 512
STREAM = 2**28


class Generator:
    """One generator with its parameters. Raises ConfigError for a wrong name or wrong parameters."""

    def __init__(self, name: str, params: Mapping[str, Any]) -> None:
        self._name, self._params = name, dict(params)
        self._block_seed = -1
        self._block: Any = None
        self.entry(0, 0)

    def entry(self, stream: int, index: int) -> dict[str, Any]:
        """question: str, answer: str or None, metadata. The same for the same arguments, everywhere."""
        return dict(self._dataset(stream, index)[index % BLOCK])

    def score(self, stream: int, index: int, answer: str) -> float:
        """The generator's own score, in [0, 1]."""
        dataset = self._dataset(stream, index)
        return float(dataset.score_answer(answer, dataset[index % BLOCK]))

    def _dataset(self, stream: int, index: int) -> Any:
        seed = stream * STREAM + index - index % BLOCK
        if seed != self._block_seed:
            self._block, self._block_seed = self._create(seed), seed
        return self._block

    def _create(self, seed: int) -> Any:
        import reasoning_gym
        from reasoning_gym.factory import DATASETS

        if self._name not in DATASETS:
            close = difflib.get_close_matches(self._name, DATASETS, n=3, cutoff=0.5)
            hint = (
                f"did you mean {' or '.join(close)}?"
                if close
                else "known are the keys of reasoning_gym.factory.DATASETS"
            )
            raise ConfigError(f"task.generator = '{self._name}': reasoning_gym has no such generator; {hint}")
        try:
            return reasoning_gym.create_dataset(self._name, seed=seed, size=BLOCK, **self._params)
        except (ValueError, TypeError, AssertionError) as error:
            raise ConfigError(f"task.generator_params = {self._params} for '{self._name}': {error}") from error


def reasoning_gym_check(name: str, params: Mapping[str, Any]) -> Callable[[Answer, str | None], bool]:
    """Right means a full score: the generators give partial credit for near misses."""
    generator = Generator(name, params)

    def check(answer: Answer, final: str | None) -> bool:
        if final is None:
            return False
        where = json.loads(answer.problem.metadata)
        return generator.score(where["stream"], where["index"], final) >= 1.0

    return check
