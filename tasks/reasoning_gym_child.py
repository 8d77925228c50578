"""A process that makes reasoning_gym's entries: `python -m tasks.reasoning_gym_child`, one JSON line in, one out.

    first line: name, parameters, seconds for one entry
    then:       {"stream": .., "index": ..}  ->  {"entry": ..} or {"configuration": ..} or {"error": ..}

A process of its own because entries depend on the order of sets and on the global random generators: its parent
starts it with PYTHONHASHSEED=0, and it seeds the global generators for each entry, so that an entry is the same in
every run and on every machine. Generators are asked in blocks of BLOCK entries: some prepare all entries at
construction. Entry i of a stream has the random seed stream * STREAM + i, as the generators add index to seed.
"""

import difflib
import json
import os
import random
import signal
from collections.abc import Mapping
from typing import Any

from contracts.errors import ConfigError
from tasks import typed_json

BLOCK = 512
ORPHAN_GRACE_S = 2.0
STREAM = 2**28


def main() -> None:
    """Serves requests for generated entries until standard input ends: one JSON line in, one out."""
    requests, replies = os.fdopen(os.dup(0), "r"), os.fdopen(os.dup(1), "w")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1):  # what generators print goes nowhere
        os.dup2(nowhere, standard)
    settings = json.loads(requests.readline())
    entries = Entries(settings["name"], settings["params"])
    for line in requests:
        signal.setitimer(signal.ITIMER_REAL, settings["deadline_s"] + ORPHAN_GRACE_S)  # whether or not the parent lives
        replies.write(json.dumps(_reply(entries, json.loads(line))) + "\n")
        replies.flush()
        signal.setitimer(signal.ITIMER_REAL, 0.0)


class Entries:
    """The entries of one generator with its parameters. Raises ConfigError for a wrong name or wrong parameters."""

    def __init__(self, name: str, params: Mapping[str, Any]) -> None:
        self._name, self._params = name, dict(params)
        self._block_seed = -1
        self._block: Any = None

    def entry(self, stream: int, index: int) -> dict[str, Any]:
        """question: str, answer: str or None, metadata."""
        seed = stream * STREAM + index - index % BLOCK
        if seed != self._block_seed:
            seed_global_generators(seed)
            self._block, self._block_seed = create_dataset(self._name, self._params, seed, BLOCK), seed
        seed_global_generators(seed + index % BLOCK)
        return dict(self._block[index % BLOCK])


def create_dataset(name: str, params: Mapping[str, Any], seed: int, size: int) -> Any:
    """A reasoning_gym dataset. Raises ConfigError for a wrong name or wrong parameters."""
    import reasoning_gym
    from reasoning_gym.composite import DatasetSpec
    from reasoning_gym.factory import DATASETS

    if name not in DATASETS:
        close = difflib.get_close_matches(name, DATASETS, n=3, cutoff=0.5)
        hint = (
            f"did you mean {' or '.join(close)}?" if close else "known are the keys of reasoning_gym.factory.DATASETS"
        )
        raise ConfigError(f"task.generator = '{name}': reasoning_gym has no such generator; {hint}")
    try:
        if name == "composite" and "datasets" in params:
            params = {**params, "datasets": [DatasetSpec(**part) for part in params["datasets"]]}
        return reasoning_gym.create_dataset(name, seed=seed, size=size, **params)
    except (ValueError, TypeError, AssertionError) as error:
        raise ConfigError(f"task.generator_params = {dict(params)} for '{name}': {error}") from error


def seed_global_generators(seed: int) -> None:
    """Some generators draw from Python's and numpy's global generators beside their own."""
    import numpy as np

    random.seed(seed)
    np.random.seed(seed % 2**32)


def _reply(entries: Entries, request: Mapping[str, int]) -> dict[str, Any]:
    try:
        return {"entry": typed_json.dumps(entries.entry(request["stream"], request["index"]))}
    except ConfigError as error:
        return {"configuration": str(error)}
    except Exception as error:  # noqa: BLE001  whatever a generator raises becomes a message
        return {"error": f"{type(error).__name__}: {str(error)[:300]}"}


if __name__ == "__main__":
    main()
