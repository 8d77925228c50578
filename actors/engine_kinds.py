"""What settings, plan and placement ask of an engine without loading it: a row for each. Loads without torch.

The loaders under the same names are in load.py. Of a user's engine nothing is known before it is loaded: its row is `USERS`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from loading.dotted_path import is_dotted

EngineName = Literal["scripted", "transformers", "vllm"]


@dataclass(frozen=True, slots=True)
class EngineKind:
    """takes_model, takes_script: generates with a model; with model.name = "scripted", which has none.

    uses_device: actors.device and gpus_per_worker say where it computes. shares_gpu: takes a card's memory as it needs it, so
    that several processes fit on one. tensor_parallel: a copy of the model lies on actors.vllm.tensor_parallel_size cards,
    and has actors.vllm.gpu_memory_utilization of each from its start. continuous: takes new requests while others decode.
    lora_paths: adds LoRA as actors.lora_path says. rounds_lora: may lose part of a small update to rounding in any case.
    reads: settings of [actors] that not every engine reads.
    """

    takes_model: bool = True
    takes_script: bool = False
    uses_device: bool = True
    shares_gpu: bool = False
    tensor_parallel: bool = False
    continuous: bool = False
    lora_paths: bool = False
    rounds_lora: bool = False
    reads: frozenset[str] = frozenset()


_ROWS: Mapping[EngineName, EngineKind] = {
    "scripted": EngineKind(
        takes_model=False, takes_script=True, uses_device=False, reads=frozenset({"scripted", "max_batch_rows"})
    ),
    "transformers": EngineKind(shares_gpu=True, lora_paths=True, reads=frozenset({"lora_path", "max_batch_rows"})),
    "vllm": EngineKind(tensor_parallel=True, continuous=True, rounds_lora=True, reads=frozenset({"vllm"})),
}
USERS = EngineKind(
    takes_script=True, rounds_lora=True, reads=frozenset({"scripted", "lora_path", "max_batch_rows", "vllm"})
)
"""It is given all of [actors] and may read it; it is served in batches of actors.max_batch_rows, on a card of its own."""


def engine_kind(name: str) -> EngineKind:
    """name: one of the table's, or a user's as FILE.py:name."""
    return USERS if is_dotted(name) else _ROWS[name]  # type: ignore[index]
