"""An adapter: the LoRA weights of one policy version, published once as an immutable artifact."""

import hashlib
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import SupportsIndex

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class LoraShape:
    """What an engine must know to apply the weights: y += (alpha / r) * B A x on every target module."""

    r: int
    alpha: float
    target_modules: tuple[str, ...]

    @property
    def scale(self) -> float:
        return self.alpha / self.r


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """What the learner makes of one probe, computed in one data type, without an adapter and with it.

    float32 [P] each, log p(token i | tokens before i) at temperature 1; entry 0 is 0.
    """

    base_P: NDArray[np.float32]
    adapted_P: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """A fixed token sequence and two readings of it by the learner: the same weights, computed in float32 and in bfloat16.

    tokens_P: int32. What the readings differ by is rounding alone, at these weights and on these tokens.
    """

    tokens_P: NDArray[np.int32]
    float32: Reading
    bfloat16: Reading


@dataclass(frozen=True, slots=True, eq=False)
class AmplifiedProbe:
    """A short sequence of mixed tokens, int32 [P], and the learner's two readings of it, float32 [P] as in `Reading`."""

    tokens_P: NDArray[np.int32]
    float32_P: NDArray[np.float32]
    bfloat16_P: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Amplified:
    """The adapter with its scale multiplied by factor, a power of two, as the learner reads it; probes: all of one length."""

    factor: float
    probes: tuple[AmplifiedProbe, ...]


@dataclass(frozen=True, slots=True, eq=False)
class AdapterManifest:
    """Everything about an adapter but its weights.

    weights_hash: SHA-256 hex of the safetensors bytes.
    base_model: the name or path the learner loaded; engines must have loaded the same.
    template_hash: of tokenizer vocabulary, chat template and what is made of it (tasks.prompts.HfTokenizer.fingerprint).
    dtype: torch dtype name of the learner's base weights.
    """

    policy_version: int
    weights_hash: str
    num_bytes: int
    base_model: str
    lora: LoraShape
    dtype: str
    template_hash: str
    probes: tuple[Probe, ...] = ()
    amplified: Amplified | None = None

    @property
    def name(self) -> str:
        return f"v{self.policy_version:06d}-{self.weights_hash[:12]}"


@dataclass(frozen=True, slots=True, eq=False)
class Adapter:
    """Manifest and weights: safetensors bytes, tensor names as PEFT writes them
    (`base_model.model.<module path>.lora_A.weight` [r, in], `...lora_B.weight` [out, r])."""

    manifest: AdapterManifest
    weights: bytes | memoryview

    def __reduce_ex__(
        self, protocol: SupportsIndex
    ) -> tuple[Callable[..., "Adapter"], tuple[AdapterManifest, pickle.PickleBuffer | bytes]]:
        """The weights travel as a buffer: processes on one node read the same bytes in the object store, uncopied."""
        if int(protocol) < 5:
            return _arrived, (self.manifest, bytes(self.weights))
        return _arrived, (self.manifest, pickle.PickleBuffer(self.weights))

    def __post_init__(self) -> None:
        actual = hashlib.sha256(self.weights).hexdigest()
        if actual != self.manifest.weights_hash:
            raise ValueError(
                f"adapter v{self.manifest.policy_version}: weights hash to {actual[:12]}, the manifest says "
                f"{self.manifest.weights_hash[:12]}; the artifact is damaged, publish or copy it again"
            )


def _arrived(manifest: AdapterManifest, weights: bytes | memoryview) -> Adapter:
    """As it was sent; the hash was checked when the artifact was made, and the worker's proof checks what it does."""
    adapter: Adapter = object.__new__(Adapter)
    object.__setattr__(adapter, "manifest", manifest)
    object.__setattr__(adapter, "weights", weights)
    return adapter
