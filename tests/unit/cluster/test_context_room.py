"""Room in the model's context for every limit that a run asks for: training, evaluations, replies."""

import json
from pathlib import Path
from typing import Any

import pytest

from actors.engines.scripted.char_tokenizer import CharTokenizer
from actors.load import EngineNeeds
from cluster.config.run_config import RunConfig
from cluster.launch.context_budget import find_room, longest_answer, model_context
from cluster.launch.ray_handles import PlacementOptions, RayWorkers, ServiceInputs
from cluster.record.run_processes import RunProcesses
from contracts.errors import ConfigError
from tasks.environment import TRY_AGAIN

LETTERS = CharTokenizer("".join(map(chr, range(32, 127))) + "\n")


def config_of(**sections: dict[str, Any]) -> RunConfig:
    base: dict[str, dict[str, Any]] = {"task": {"max_prompt_tokens": 100}, "actors": {"max_new_tokens": 64}}
    return RunConfig.model_validate({name: base.get(name, {}) | sections.get(name, {}) for name in {*base, *sections}})


@pytest.fixture
def model(tmp_path: Path) -> str:
    stored = {"model_type": "llama", "max_position_embeddings": 512}
    (tmp_path / "config.json").write_text(json.dumps(stored))
    return str(tmp_path)


@pytest.mark.parametrize(
    ("evaluation", "longest"),
    [
        ({}, 64),
        ({"max_new_tokens": 32}, 64),
        ({"max_new_tokens": 128}, 128),
        ({"generous_max_new_tokens": 300}, 300),
        ({"max_new_tokens": 128, "generous_max_new_tokens": 96}, 128),
        ({"problems": 0, "generous_max_new_tokens": 300}, 64),
    ],
)
def test_an_engine_has_room_for_the_longest_limit_of_all(evaluation: dict[str, int], longest: int, model: str) -> None:
    config = config_of(eval=evaluation)
    assert longest_answer(config) == longest
    assert find_room(config, LETTERS, model, prompt=100) == 100 + longest


def test_replies_of_an_environment_have_room_beside_the_answer(model: str) -> None:
    reply = len(LETTERS.encode_reply(TRY_AGAIN))
    config = config_of(task={"environment": "retry", "max_turns": 4})
    assert find_room(config, LETTERS, model, prompt=100) == 100 + 64 + 3 * reply


def test_replies_of_a_users_own_environment_get_as_much_again_and_refuse_nothing(model: str) -> None:
    config = config_of(task={"kind": "mine:Task"}, actors={"max_new_tokens": 256})
    assert find_room(config, LETTERS, model, prompt=90) == min(512, 100 + 256 + 256)
    assert find_room(config_of(task={"kind": "mine:Task"}), LETTERS, model, prompt=90) == 100 + 64 + 64


def test_what_the_context_cannot_hold_is_refused_with_the_settings_that_ask_for_it(model: str) -> None:
    config = config_of(eval={"generous_max_new_tokens": 440})
    with pytest.raises(ConfigError, match=r"540 tokens.*prompt has 100, the longest answer 440.*512\..*eval\.generous"):
        find_room(config, LETTERS, model, prompt=100)
    assert find_room(config, LETTERS, model, prompt=72) == 512, "the prompts that there are fit"
    with pytest.raises(ConfigError, match="the longest answer 500"):
        find_room(config_of(), LETTERS, model, prompt=13, answer=500)


def test_a_run_that_has_begun_is_told_and_goes_on(model: str) -> None:
    told: list[str] = []
    config = config_of(actors={"max_new_tokens": 500})
    assert find_room(config, LETTERS, model, prompt=100, say=told.append) == 512
    assert len(told) == 1
    assert find_room(config_of(), LETTERS, model, prompt=100, say=told.append) == 164
    assert len(told) == 1


@pytest.mark.parametrize(
    ("stored", "context"),
    [
        ({"model_type": "gpt2", "n_positions": 256}, 256),
        ({"model_type": "bloom"}, None),
        (
            {
                "model_type": "llama",
                "max_position_embeddings": 2048,
                "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4},
            },
            None,
        ),
        (
            {
                "model_type": "llama",
                "max_position_embeddings": 131072,
                "rope_parameters": {
                    "rope_type": "llama3",
                    "factor": 32.0,
                    "rope_theta": 5e5,
                    "high_freq_factor": 4.0,
                    "low_freq_factor": 1.0,
                    "original_max_position_embeddings": 8192,
                },
            },
            131072,
        ),
    ],
)
def test_the_context_is_what_the_model_was_made_for(
    stored: dict[str, Any], context: int | None, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(stored))
    assert model_context(str(tmp_path)) == context
    assert find_room(config_of(), LETTERS, str(tmp_path), prompt=100) == min(164, context or 164)


LONGROPE = {
    "model_type": "phi3",
    "max_position_embeddings": 131072,
    "original_max_position_embeddings": 160,
    "rope_parameters": {
        "rope_type": "longrope",
        "rope_theta": 1e4,
        "short_factor": [1.0] * 48,
        "long_factor": [4.0] * 48,
        "original_max_position_embeddings": 160,
    },
}
DYNAMIC = {
    "model_type": "llama",
    "max_position_embeddings": 160,
    "rope_parameters": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4},
}


@pytest.mark.parametrize("stored", [LONGROPE, DYNAMIC])
def test_where_positions_turn_by_the_longest_of_a_batch_no_rollout_is_that_long(
    stored: dict[str, Any], tmp_path: Path
) -> None:
    """Rows of one batch on both sides of the limit: log-probs 3.4 nats off, and no check of short rows can see it."""
    (tmp_path / "config.json").write_text(json.dumps(stored))
    with pytest.raises(ConfigError, match=r"164 tokens.*by another rule .* for batches with more than 160\. Lower"):
        find_room(config_of(), LETTERS, str(tmp_path), prompt=100)
    assert find_room(config_of(), LETTERS, str(tmp_path), prompt=96) == 160, "engines are told of no more"


def test_a_scripted_run_has_no_context() -> None:
    config = config_of(model={"name": "scripted"}, actors={"engine": "scripted", "max_new_tokens": 9000})
    assert find_room(config, LETTERS, "scripted", prompt=100) == 9100


def test_workers_are_started_with_the_room_of_the_whole_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given: list[EngineNeeds] = []

    class Actor:
        def remote(self, *arguments: Any) -> None:
            given.append(arguments[-1])

    class Anywhere(PlacementOptions):
        def options(self, part: str) -> dict[str, Any]:
            return {}

    nowhere: Any = None
    monkeypatch.setattr("cluster.launch.ray_handles.actor_with", lambda *_: Actor())
    config = config_of(eval={"generous_max_new_tokens": 300})
    inputs = ServiceInputs("model", "hash", (), 400)
    RayWorkers(config, inputs, Anywhere(nowhere), RunProcesses(tmp_path)).create("worker-0", "worker")
    assert [needs.max_model_len for needs in given] == [400]
