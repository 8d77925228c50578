"""Encoders give unit vectors; the real one knows what is similar."""

import numpy as np
import pytest

from contracts.errors import DataError
from memory_service.config import MemorySettings
from memory_service.encoder import HashEncoder, SentenceEncoder, load_encoder

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
