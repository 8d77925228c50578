"""Settings: strict, self-describing, and light."""

import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from actors.config import ActorSettings, ScriptedSettings
from actors.engines.scripted.char_tokenizer import CharTokenizer
from actors.engines.scripted.scripted_engine import ScriptedEngine
from actors.engines.torch_decoding.transformers_engine import TransformersEngine
from actors.load import load_engine, load_worker_tokenizer
from contracts.errors import ConfigError, DataError
from tests.tiny_policy import ask, tiny_adapter, tiny_llama, tiny_tokenizer


@pytest.mark.parametrize("section", [ActorSettings, ScriptedSettings])
def test_every_setting_has_a_line_of_text(section: type[ActorSettings] | type[ScriptedSettings]) -> None:
    for name, field in section.model_fields.items():
        assert field.description, name
        assert "\n" not in field.description


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temperature": 0.0}, "greater than 0"),
        ({"top_p": 0.9}, "Extra inputs"),
        ({"gpus_per_worker": 1.5}, "a share below 1, or a whole number"),
        ({"engine": "sglang"}, "'scripted', 'transformers' or 'vllm'"),
        ({"scripted": {"faults": {"raise": 1.5}}}, "less than or equal to 1"),
        ({"scripted": {"faults": {"rise": 0.5}}}, "'raise', 'hang', 'abort', 'timeout' or 'nan'"),
    ],
)
def test_wrong_settings_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ActorSettings.model_validate(values)


def test_an_engine_that_is_always_full_has_a_group_waiting_at_its_door() -> None:
    assert ActorSettings(max_batch_rows=64).window_rows == 64
    assert ActorSettings(engine="vllm", rollouts_per_group=8).window_rows == 64 + 8


def test_a_pool_takes_what_it_does_not_say_from_actors() -> None:
    settings = ActorSettings.model_validate(
        {"engine": "vllm", "dtype": "float32", "pools": [
            {"name": "big", "num_workers": 2, "gpus_per_worker": 1.0},
            {"name": "small", "num_workers": 1, "engine": "transformers", "device": "cpu", "max_batch_rows": 8},
        ]}
    )  # fmt: skip
    big, small = settings.by_pool["big"], settings.by_pool["small"]
    assert (big.engine, big.dtype, big.gpus_per_worker, big.num_workers) == ("vllm", "float32", 1.0, 2)
    assert (small.engine, small.device, small.max_batch_rows, small.continuous) == ("transformers", "cpu", 8, False)


@pytest.mark.parametrize(
    ("pools", "message"),
    [
        ([{"name": "a", "num_workers": 1}, {"name": "a", "num_workers": 1}], "names twice"),
        ([{"name": "a", "num_workers": 0}], "starts no worker"),
    ],
)
def test_pools_that_make_no_sense_are_refused(pools: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ActorSettings.model_validate({"pools": pools})


def test_settings_load_without_torch() -> None:
    code = "import sys, actors.config; print({'torch', 'ray', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "set()"


def test_scripted_settings_give_the_scripted_engine() -> None:
    settings = ActorSettings(engine="scripted")
    assert isinstance(load_engine(settings, "nowhere", CharTokenizer("abc")), ScriptedEngine)


def test_the_scripted_engine_wants_characters() -> None:
    words: Any = object()
    with pytest.raises(ConfigError, match=r"the tokenizer is object.*build a CharTokenizer"):
        load_engine(ActorSettings(engine="scripted"), "nowhere", words)


def test_the_tokenizer_goes_with_the_engine() -> None:
    tokenizer = load_worker_tokenizer(ActorSettings(engine="scripted"), "nowhere")
    assert tokenizer.fingerprint == CharTokenizer(ScriptedSettings.alphabet).fingerprint


def test_a_missing_model_is_a_data_error_that_names_the_path(tmp_path: Any) -> None:
    with pytest.raises(DataError, match=r"cannot load the model at .*no-such-model"):
        load_engine(ActorSettings(), tmp_path / "no-such-model", tiny_tokenizer())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_saved_model_is_served_from_its_folder(tmp_path: Any, dtype: Any) -> None:
    tiny_llama().save_pretrained(tmp_path)
    settings = ActorSettings(dtype=dtype, device="cpu", torch_threads=1)
    engine = load_engine(settings, tmp_path, tiny_tokenizer())
    assert isinstance(engine, TransformersEngine)
    engine.load_adapter(tiny_adapter(0, tiny_llama()))
    assert len(engine.generate([ask("1 + 1", (1, 2), 3)], 0, 60.0)[0]) == 2
