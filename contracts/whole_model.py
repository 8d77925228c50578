"""Whether a model's files gave all of its weights, and weights that are numbers.

transformers draws at random what the files lack, and says so in a report that nobody of another process sees: a model of which
half is noise would be sampled, trained and published. Learner and engine both look here before they take a model.

Tensors are torch's, by what they can do; this package loads without torch.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from contracts.errors import LoadError

SHOWN = 3
"""Names in a message."""

OF_QUANTISED = ("_scale", "_scale_inv", ".qweight", ".qzeros", ".g_idx", ".scales", ".absmax", "weight_packed")
"""How tensors end that stand beside quantised weights alone."""

WANTED: dict[str, Any] = {"output_loading_info": True, "ignore_mismatched_sizes": True}
"""Arguments of from_pretrained under which it tells what was missing, and leaves the verdict to `refuse_holes`."""


def refuse_holes(model_path: str, info: Mapping[str, Any]) -> None:
    """info: of from_pretrained(.., **WANTED). Raises LoadError for weights that are not in the files, of another shape, or
    quantised."""
    files = f"the files of {model_path}"
    if scales := sorted(str(name) for name in info["unexpected_keys"] if str(name).endswith(OF_QUANTISED)):
        raise LoadError(
            f"{files} hold quantised weights ({_shown(scales)}), and config.json names no quantisation. Give the model that it "
            "was quantised from"
        )
    if other := sorted(info["mismatched_keys"], key=str):
        name, found, wanted = other[0]
        raise LoadError(
            f"{files} hold another model's weights: {name} is {list(found)} there and {list(wanted)} by config.json "
            f"({len(other)} of this kind). config.json and the weights must come from one model"
        )
    if missing := sorted(map(str, info["missing_keys"])):
        raise LoadError(
            f"{files} lack {len(missing)} weights of the model that config.json describes, which would be random numbers: "
            f"{_shown(missing)}. Download the model again, whole, or mend config.json (architectures, num_hidden_layers)"
        )


def refuse_no_numbers(model_path: str, tensors: Iterable[tuple[str, Any]]) -> None:
    """Raises LoadError for the first weight that holds NaN or infinity."""
    for name, tensor in tensors:
        largest = tensor.abs().amax() if tensor.is_floating_point() and tensor.numel() else None
        if largest is not None and not bool(largest.isfinite()):
            raise LoadError(
                f"the weights of {model_path} are damaged: {name} holds NaN or infinity in {tensor.dtype}. Download or save "
                "the model again; where float16 or bfloat16 was too narrow for it, take dtype = 'float32'"
            )


def _shown(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
