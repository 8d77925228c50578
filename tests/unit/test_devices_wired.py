"""Learner, engine and encoder all ask which device they may use, and a card that torch cannot use ends their start."""

from collections.abc import Callable

import pytest
import torch

from actors.config import ActorSettings
from actors.engines.scripted.char_tokenizer import CharTokenizer
from actors.load import load_engine
from contracts.errors import ConfigError
from learner.config import LearnerSettings
from learner.policy import device_of
from memory_service.config import MemorySettings
from memory_service.encoder import load_encoder

if torch.cuda.is_available():
    pytest.skip("of a machine whose card torch cannot use", allow_module_level=True)


def engine(device: str) -> object:
    settings = ActorSettings.model_validate({"device": device})
    return load_engine(settings, "no-such-model", CharTokenizer("a"))


def learner(device: str) -> object:
    return device_of(LearnerSettings.model_validate({"device": device}))


def encoder(device: str) -> object:
    return load_encoder(MemorySettings.model_validate({"device": device}))


@pytest.mark.parametrize(("part", "key"), [(engine, "actors.device"), (learner, "learner.device")])
def test_a_card_that_torch_cannot_use_is_not_passed_over(
    part: Callable[[str], object], key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("actors.load", "learner.policy"):
        monkeypatch.setattr(f"{module}.cards", lambda: ["nvidia0"])
    with pytest.raises(ConfigError, match=rf"{key} = 'auto'.*1 NVIDIA card\(s\) \(nvidia0\)"):
        part("auto")


@pytest.mark.parametrize(
    ("part", "key"), [(engine, "actors.device"), (learner, "learner.device"), (encoder, "memory.device")]
)
def test_a_card_that_is_asked_for_and_not_there_is_told(part: Callable[[str], object], key: str) -> None:
    with pytest.raises(ConfigError, match=f"{key} = 'cuda'.*no NVIDIA card"):
        part("cuda")


def test_the_encoder_is_told_its_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a device sentence-transformers takes the first card that it sees."""
    given: list[object] = []

    def refuse(*_: object, device: object = None, **__: object) -> None:
        given.append(device)
        raise OSError("told enough")

    monkeypatch.setattr("sentence_transformers.SentenceTransformer", refuse)
    with pytest.raises(Exception, match="told enough"):
        encoder("cpu")
    assert given == ["cpu"]
