"""Encoders give unit vectors; the real one knows what is similar."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel

from contracts.errors import DataError, LoadError
from memory_service.config import MemorySettings
from memory_service.encoder import HashEncoder, SentenceEncoder, load_encoder
from tests.unit.tasks.test_tasks_prompts import byte_tokenizer

SIMILAR = ["There are 3 apples and 4 pears in a bowl.", "A bowl holds 4 pears and 3 apples.", "The train left at noon."]


def test_hash_encoder_is_deterministic_unit_and_local() -> None:
    vectors = HashEncoder(64).encode([*SIMILAR, ""])
    assert np.array_equal(vectors, HashEncoder(64).encode([*SIMILAR, ""]))
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]


def test_encoder_is_chosen_by_name() -> None:
    assert isinstance(load_encoder(MemorySettings(encoder="hash:32")), HashEncoder)


@pytest.mark.slow
def test_real_encoder_orders_by_meaning_and_bfloat16_is_the_same_encoder() -> None:
    wide, narrow = (SentenceEncoder(MemorySettings(encoder_dtype=dtype)) for dtype in ("float32", "bfloat16"))
    full, half = wide.encode(SIMILAR), narrow.encode(SIMILAR)
    assert full.shape == (3, 384)
    assert full[0] @ full[1] > 0.8 > full[0] @ full[2]
    assert ((full * half).sum(axis=1) > 0.999).all()
    assert wide.fingerprint != narrow.fingerprint


@pytest.mark.slow
def test_long_texts_are_cut_or_averaged_by_choice() -> None:
    ending = " The answer is forty-two, the train is late, the cat sleeps." * 30
    long = ["Nine apples. " * 300, "Nine apples. " * 300 + ending]
    cut = SentenceEncoder(MemorySettings(long_text="cut")).encode(long)
    mean = SentenceEncoder(MemorySettings(long_text="mean_of_windows")).encode(long)
    assert cut[0] @ cut[1] == pytest.approx(1.0, abs=1e-4), "the cut never saw the ending"
    assert mean[0] @ mean[1] < 0.999
    assert np.linalg.norm(mean, axis=1) == pytest.approx(1.0)


@pytest.mark.slow
def test_missing_encoder_says_what_to_set(tmp_path: object) -> None:
    with pytest.raises(DataError, match=r"memory\.encoder = './nowhere'"):
        load_encoder(MemorySettings(encoder="./nowhere"))


@pytest.fixture(scope="module")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as sentence-transformers reads one without modules.json: mean pooling over a tiny BERT."""
    folder = tmp_path_factory.mktemp("encoder")
    tokenizer = byte_tokenizer(None, pad_token="<|endoftext|>")
    tokenizer.save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertModel(config).save_pretrained(folder)  # type: ignore[no-untyped-call]
    return folder


def without_a_layer(folder: Path) -> None:
    stored = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in stored.items() if "layer.1." not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def with_one_layer_declared(folder: Path) -> None:
    stored = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(stored | {"num_hidden_layers": 1}))


def in_integers(folder: Path) -> None:
    stored = load_file(folder / "model.safetensors")
    name = "encoder.layer.0.output.dense.weight"
    save_file(stored | {name: stored[name].to(torch.int8)}, folder / "model.safetensors", metadata={"format": "pt"})


def with_nan(folder: Path) -> None:
    stored = load_file(folder / "model.safetensors")
    stored["encoder.layer.0.output.dense.bias"][3] = np.nan
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})


def without_vocabulary(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    named = {"tokenizer_class": "BertTokenizer", "pad_token": "[PAD]", "unk_token": "[UNK]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(named))


def of_another_size(folder: Path) -> None:
    stored = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(stored | {"vocab_size": 300}))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (without_a_layer, r"files of memory\.encoder = .*lack 16 weights .*random numbers"),
        (with_one_layer_declared, r"files of memory\.encoder = .*hold 2 layers and config\.json declares 1: "),
        (in_integers, r"files of memory\.encoder = .*stored as I8 \(encoder\.layer\.0\.output\.dense\.weight\)"),
        (with_nan, r"weights of memory\.encoder = .*damaged: .*layer\.0\.output\.dense\.bias holds NaN"),
        (without_vocabulary, r"reads every text alike: its tokenizer has no vocabulary"),
        (
            of_another_size,
            r"another model's weights: embeddings\.word_embeddings\.weight is \[\d+, 32\] there and \[300, 32\]",
        ),
    ],
)
def test_an_encoder_whose_vectors_would_mean_nothing_is_refused(
    tiny_encoder: Path, tmp_path: Path, spoil: Callable[[Path], None], says: str
) -> None:
    """Its libraries take each of them without an error, and neighbours would be drawn at random."""
    folder = tmp_path / "encoder"
    shutil.copytree(tiny_encoder, folder)
    asked = MemorySettings(encoder=str(folder), device="cpu")
    assert load_encoder(asked).encode(SIMILAR).shape == (3, 32)
    spoil(folder)
    with pytest.raises(LoadError, match=says):
        load_encoder(asked)
