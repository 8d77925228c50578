"""What refuses to load is told once, by its own words, and nothing is started again for it."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.commands import cli
from cluster.launch.model_store import PACKAGED_MODEL, resolve_model
from contracts.errors import ActorLostError, ConfigError, DataError, LoadError, RunStopped
from learner.config import LearnerSettings
from learner.load import load_learner
from memory_service.config import MemorySettings
from memory_service.encoder import load_encoder
from tests.tiny_policy import tiny_llama

GPT2 = {"model_type": "gpt2", "vocab_size": 8}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("a"), 2),
        (LoadError("b"), 2),
        (ModuleNotFoundError("No module named 'peft'"), 2),
        (DataError("c"), 3),
        (RunStopped("d"), 3),
        (ActorLostError("e"), 3),
        (FileNotFoundError(2, "No such file or directory", "f"), 3),
    ],
)
def test_what_cannot_be_loaded_is_exit_code_2(
    error: Exception, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def app() -> None:
        raise error

    monkeypatch.setattr(cli, "app", app)
    monkeypatch.setattr(sys, "argv", ["memr"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == code
    assert str(error) in capsys.readouterr().err


@pytest.mark.parametrize(
    ("stored", "says"),
    [
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, r"quantised \(bitsandbytes\)"),
        ({"quant_method": "gptq", "bits": 4}, r"quantised \(gptq\)"),
        ({"quant_method": "awq"}, r"quantised \(awq\)"),
        ({"quant_method": "fp8"}, r"quantised \(fp8\)"),
    ],
)
def test_quantised_weights_are_refused_before_anything_is_loaded(
    tmp_path: Path, stored: dict[str, Any], says: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(GPT2 | {"quantization_config": stored}))
    with pytest.raises(LoadError, match=f"{says}.*Give the model that it was quantised from"):
        resolve_model(str(tmp_path))


@pytest.mark.parametrize("config", ["{ half", '{"model_type": "no_such_kind"}', "{}"])
def test_a_config_that_names_no_model_is_one_sentence(tmp_path: Path, config: str) -> None:
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(LoadError, match=r"model\.name = .*config\.json cannot be read: \w+"):
        resolve_model(str(tmp_path))


def test_a_cache_that_cannot_be_written_names_its_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MEMR_CACHE", str(tmp_path / "file"))
    with pytest.raises(LoadError, match=r"cannot be unpacked into .*file.*: NotADirectoryError.*Set MEMR_CACHE"):
        resolve_model(PACKAGED_MODEL)


def test_an_encoder_that_is_none_names_the_setting() -> None:
    """One without a dimension is refused where it is read (test_set_options.py)."""
    with pytest.raises(
        LoadError, match=r"memory\.encoder = '\./nowhere' cannot be loaded: no such folder: /.*nowhere. Give the folder"
    ):
        load_encoder(MemorySettings(encoder="./nowhere"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    tiny_llama().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def spoilt_weights(model: Path) -> None:
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def no_weights(model: Path) -> None:
    (model / "model.safetensors").unlink()


def soft_caps(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    config |= {"model_type": "gemma2", "architectures": ["Gemma2ForCausalLM"], "final_logit_softcapping": 0.5}
    (model / "config.json").write_text(json.dumps(config))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("spoil", "settings", "says"),
    [
        (spoilt_weights, {}, "SafetensorError"),
        (no_weights, {}, "no file named"),
        (soft_caps, {}, ""),
        (lambda model: None, {"lora_targets": ("q_projj",)}, r"q_projj.*learner\.lora_targets names linear layers"),
        (lambda model: None, {"lora_targets": ("embed_tokens", "norm")}, "RMSNorm"),
    ],
)
def test_a_learner_that_cannot_be_had_is_one_sentence(
    model: Path, spoil: Callable[[Path], None], settings: dict[str, Any], says: str
) -> None:
    spoil(model)
    wanted = LearnerSettings.model_validate({"dtype": "float32", "device": "cpu", "torch_threads": 1} | settings)
    with pytest.raises(LoadError, match=says):
        load_learner(wanted, str(model), 0, "", (), 8)
