"""The learner's state on disk: one safetensors file and a JSON manifest with its hash, written last.

The caller of `save` renames the directory into place; here the manifest's presence means complete. Synced here, because
the caller may be on another machine; the directory's own name is the caller's.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor

from contracts.errors import DataError
from storage.bounded_json import Count, Finite, Stored, read_bounded, read_fields
from storage.durable import sync_directory, write_file

TENSORS, MANIFEST = "learner.safetensors", "learner.json"
FORMAT = 1
MAX_TENSORS_BYTES = 16 * 2**30
"""Weights and two moments in float32 of 1.4 billion trained parameters."""


@dataclass(frozen=True, slots=True)
class LearnerManifest:
    """What must agree on resume, and the version."""

    policy_version: int
    base_model: str
    template_hash: str
    dtype: str
    lora_r: int
    lora_alpha: float
    target_modules: tuple[str, ...]
    tensors_hash: str = ""
    format: int = FORMAT


def write(directory: Path, manifest: LearnerManifest, tensors: Mapping[str, Tensor]) -> None:
    """Writes the tensors, then the manifest with their SHA-256, each synchronised to disk."""
    directory.mkdir(parents=True, exist_ok=True)
    payload = tensors_to_bytes({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    fields = asdict(manifest) | {"tensors_hash": hashlib.sha256(payload).hexdigest()}
    write_file(directory / TENSORS, payload)
    write_file(directory / MANIFEST, json.dumps(fields, indent=1).encode())
    sync_directory(directory)


class _StoredManifest(Stored):
    policy_version: Count
    base_model: str
    template_hash: str
    dtype: str
    lora_r: Count
    lora_alpha: Finite
    target_modules: tuple[str, ...]
    tensors_hash: str
    format: Count


def read(directory: Path) -> tuple[LearnerManifest, dict[str, Tensor]]:
    """Raises DataError where the checkpoint is missing, incomplete or damaged."""
    try:
        manifest = LearnerManifest(**dict(read_fields(directory / MANIFEST, _StoredManifest)))
        payload = read_bounded(directory / TENSORS, MAX_TENSORS_BYTES)
        actual = hashlib.sha256(payload).hexdigest()
        if actual != manifest.tensors_hash or manifest.format != FORMAT:
            raise DataError(
                f"{TENSORS} hashes to {actual[:12]}, the manifest says {manifest.tensors_hash[:12]} (format "
                f"{manifest.format}); resume from an older checkpoint"
            )
        return manifest, tensors_from_bytes(payload)
    except (DataError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        raise DataError(f"cannot read the learner checkpoint {directory}: {error}; use an older one") from error


def check_same(stored: LearnerManifest, own: LearnerManifest) -> None:
    """Raises DataError naming the first field in which the checkpoint is another run's."""
    for name in ("base_model", "template_hash", "dtype", "lora_r", "lora_alpha", "target_modules"):
        theirs, ours = getattr(stored, name), getattr(own, name)
        if theirs != ours:
            raise DataError(
                f"learner checkpoint of v{stored.policy_version} has {name} {theirs!r}, this learner has {ours!r}; "
                "resume with the configuration of the run that wrote it"
            )
