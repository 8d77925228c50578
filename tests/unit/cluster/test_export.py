"""`memr export --merge`: the model that was trained, in the data type that was asked for."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from actors.engines.torch_decoding.transformers_engine import TransformersEngine
from cluster.commands.cli import app
from cluster.commands.export import export_run
from cluster.config.run_config import RunConfig
from cluster.record.adapter_registry import write_adapter
from cluster.record.run_dir import create_run
from contracts.errors import ConfigError, LoadError
from tests.small_updates import bfloat16_llama, one_update, sequences
from tests.tiny_policy import adapter_of, reference_logprobs, tiny_tokenizer


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bfloat16 model, and an adapter of one update at the default learning rate."""
    bfloat16_llama(0).save_pretrained(tmp_path / "base")
    monkeypatch.setattr("cluster.commands.export._write_tokenizer", lambda model_path, out: None)
    config = RunConfig.model_validate({"run": {"directory": str(tmp_path), "name": "run"}})
    path = create_run(config, {"model_path": str(tmp_path / "base")})
    write_adapter(adapter_of(1, one_update(0, sequences())), path / "adapters")
    return path


def dtypes_of(out: Path) -> set[str]:
    with safe_open(out / "model.safetensors", framework="pt") as file:
        return {str(file.get_tensor(name).dtype) for name in file.keys()}  # noqa: SIM118  not a mapping


def test_merged_is_float32_and_computes_what_base_and_adapter_compute(run: Path, tmp_path: Path) -> None:
    said = export_run(run, tmp_path / "out", merge=True)
    assert "float32" in said
    assert dtypes_of(tmp_path / "out") == {"torch.float32"}
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "float32"
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    beside = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    engine = TransformersEngine(beside, tiny_tokenizer(), "unmerged", 8)
    update = one_update(0, sequences())
    engine.load_adapter(adapter_of(1, update))
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    moved = 0.0
    for tokens in sequences(4):
        found = reference_logprobs(merged, {}, 0.0, tokens)
        np.testing.assert_allclose(found, engine.score(tokens, 1), atol=1e-4)
        moved = max(moved, float(np.abs(found - reference_logprobs(plain, {}, 0.0, tokens)).max()))
    assert moved > 3e-3, "the update does more than the tolerance"


@pytest.mark.parametrize("merge", [False, True])
def test_an_older_version_is_written_where_it_is_asked_for(run: Path, tmp_path: Path, *, merge: bool) -> None:
    older = {name: -2 * tensor for name, tensor in one_update(0, sequences()).items()}
    write_adapter(adapter_of(0, older), run / "adapters")
    said = {
        version: export_run(run, tmp_path / str(version), merge=merge, policy_version=version) for version in (0, 1)
    }
    newest = export_run(run, tmp_path / "newest", merge=merge)
    assert "v000000-" in said[0]
    assert "v000001-" in said[1]
    assert "v000001-" in newest
    file = "model.safetensors" if merge else "adapter_model.safetensors"
    written = {name: (tmp_path / name / file).read_bytes() for name in ("0", "1", "newest")}
    assert written["1"] == written["newest"] != written["0"]


def test_a_version_that_the_run_does_not_keep_is_refused_with_those_that_it_does(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no adapter of version 7; it keeps those of 1"):
        export_run(run, tmp_path / "out", merge=False, policy_version=7)
    assert not (tmp_path / "out").exists()


def test_the_command_line_passes_the_version_on(run: Path, tmp_path: Path) -> None:
    found = CliRunner().invoke(app, ["export", str(run), str(tmp_path / "out"), "--policy-version", "7"])
    assert isinstance(found.exception, ConfigError)
    assert "it keeps those of 1" in str(found.exception)


def test_another_data_type_says_what_is_left_of_the_adapter(run: Path, tmp_path: Path) -> None:
    said = export_run(run, tmp_path / "out", merge=True, dtype="bfloat16")
    share = float(said.partition("in bfloat16, ")[2].partition("%")[0])
    assert 0 < share < 50
    assert dtypes_of(tmp_path / "out") == {"torch.bfloat16"}
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"


@pytest.mark.parametrize(
    ("merge", "dtype", "says"), [(True, "int8", "float32, bfloat16, float16"), (False, "bfloat16", "add --merge")]
)
def test_what_cannot_be_written_is_refused(run: Path, tmp_path: Path, *, merge: bool, dtype: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        export_run(run, tmp_path / "out", merge=merge, dtype=dtype)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "stored",
    [
        {"do_sample": False, "temperature": 0.6, "top_p": 0.9, "eos_token_id": 2},
        {"temperature": 0.6, "top_k": 5, "eos_token_id": 2},
        {"do_sample": True, "temperature": 0.6, "eos_token_id": 2},
        {"early_stopping": True, "length_penalty": 0.1, "eos_token_id": [2, 1]},
        {"pad_token_id": -1, "eos_token_id": 1},
    ],
)
def test_a_generation_config_that_cannot_be_written_costs_no_export(
    run: Path, tmp_path: Path, stored: dict[str, object]
) -> None:
    (tmp_path / "base" / "generation_config.json").write_text(json.dumps(stored))
    export_run(run, tmp_path / "out", merge=True)
    written = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert written["eos_token_id"] == stored["eos_token_id"]
    assert bool(written.get("do_sample")) == bool(stored.get("do_sample")), "greedy stays greedy, sampling sampling"
    if stored.get("do_sample"):
        assert written["temperature"] == stored["temperature"]
    AutoModelForCausalLM.from_pretrained(tmp_path / "out")


def test_an_export_that_fails_leaves_nothing_and_may_be_tried_again(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(model_path: str, out: Path) -> None:
        assert (out / "model.safetensors").exists(), "after the weights were written"
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr("cluster.commands.export._write_tokenizer", fails)
        with pytest.raises(ConfigError, match=r"cannot write .*out: no space left"):
            export_run(run, tmp_path / "out", merge=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "run"]
    (tmp_path / "out").mkdir()
    export_run(run, tmp_path / "out", merge=True)
    assert (tmp_path / "out" / "model.safetensors").exists()


def test_a_base_model_that_is_gone_or_broken_is_one_sentence(run: Path, tmp_path: Path) -> None:
    (tmp_path / "base" / "model.safetensors").write_bytes(b"half")
    with pytest.raises(LoadError, match=r"cannot load the model .*base: SafetensorError"):
        export_run(run, tmp_path / "out", merge=True)
    assert not (tmp_path / "out").exists()
