"""Probes of a run: short and long, fixed, within what an engine has room for and an update's share."""

from typing import Any

import numpy as np
import pytest

from cluster.config.run_config import RunConfig
from cluster.launch.probes import MAX_TOKENS, MIN_TOKENS, longest_probe, probe_sequences
from tasks.load import load_task
from tests.tiny_policy import tiny_tokenizer


def config(**sections: dict[str, Any]) -> RunConfig:
    base: dict[str, Any] = {
        "run": {"name": "r"},
        "model": {"name": "scripted"},
        "task": {"kind": "arithmetic"},
        "actors": {"engine": "scripted"},
    }
    for name, values in sections.items():
        base[name] = base.get(name, {}) | values
    return RunConfig.model_validate(base)


@pytest.mark.parametrize(
    ("prompt", "new", "groups", "rollouts", "longest"),
    [
        (256, 16, 8, 8, MIN_TOKENS),  # the quickstart: a 64th of an update would be 16
        (64, 256, 16, 8, 63),  # a prompt and its answer must fit, with a token to spare
        (4096, 1024, 16, 8, MAX_TOKENS),
        (4096, 256, 16, 8, 512),
    ],
)
def test_the_longest_probe_follows_from_prompts_and_the_size_of_an_update(
    prompt: int, new: int, groups: int, rollouts: int, longest: int
) -> None:
    given = config(
        task={"max_prompt_tokens": prompt},
        actors={"max_new_tokens": new, "rollouts_per_group": rollouts},
        cluster={"groups_per_batch": groups},
    )
    assert longest_probe(given) == longest


def test_probes_are_fixed_and_of_every_kind() -> None:
    given = config(task={"max_prompt_tokens": 400}, actors={"max_new_tokens": 1024})
    task, tokenizer = load_task(given.task), tiny_tokenizer()
    probes = probe_sequences(given, task, tokenizer)
    again = probe_sequences(given, load_task(given.task), tiny_tokenizer())
    assert all(np.array_equal(a, b) for a, b in zip(probes, again, strict=True))
    short, longer, chat, shuffled = probes
    assert len(short) <= len(longer) < len(chat) == longest_probe(given)
    assert tokenizer.decode(chat).count("What is") > 2, "several problems and their answers"
    assert set(shuffled.tolist()) <= set(chat.tolist())
    assert all(probe.dtype == np.int32 for probe in probes)
