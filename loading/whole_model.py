"""Whether a model's files gave all of its weights, whether it took all of theirs, and whether these are plain numbers.

transformers draws at random what the files lack, leaves out the layers that config.json does not count, and reads a weight that
is stored as int8 as if it were no quantised one; it reports all of that in a log that other processes do not see. A model
that is half noise, or half of one, would be sampled, trained and published. Every loader of a model calls this before it uses the model.

Models and tensors are torch's, by what they can do; this package loads without torch.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from contracts.errors import LoadError

SHOWN = 3
"""Names in a message."""

OF_QUANTISED = ("_scale", "_scale_inv", ".qweight", ".qzeros", ".g_idx", ".scales", ".absmax", "weight_packed")
"""How tensors end that stand beside quantised weights alone."""

PLAIN = ("F64", "F32", "F16", "BF16")
"""Data types of weights that are the numbers themselves, as safetensors names them."""

WANTED: dict[str, Any] = {"output_loading_info": True, "ignore_mismatched_sizes": True}
"""Arguments of from_pretrained under which it tells what was missing, and leaves the verdict to `refuse_holes`."""

_LAYER = re.compile(r"(.+?)\.(\d+)\.")
_SEVERAL_TOKENS = re.compile(r"nextn|mtp")
"""In names of settings that count layers for the prediction of several tokens at once, which no plain forward uses."""


def refuse_holes(model_path: str, info: Mapping[str, Any], model: Any, name: str = "") -> None:
    """model, info: of from_pretrained(model_path, .., **WANTED). name: of the model in messages, where it is not model_path.
    Raises LoadError for weights that are not in the files, of another shape, quantised, or of layers beyond the model's."""
    files = f"the files of {name or model_path}"
    unexpected = sorted(map(str, info["unexpected_keys"]))
    if scales := [name for name in unexpected if name.endswith(OF_QUANTISED)]:
        raise LoadError(
            f"{files} hold quantised weights ({_shown(scales)}), and config.json names no quantisation. Give the model that it "
            "was quantised from"
        )
    _refuse_integers(files, model_path, model)
    _refuse_more_layers(files, unexpected, model)
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


def _refuse_integers(files: str, model_path: str, model: Any) -> None:
    """Weights in integers or in 8-bit floats are quantised ones, whose scales are somewhere else. Buffers (positions, masks)
    may be integers. Looks at the headers of safetensors files; others are as they are."""
    if getattr(model.config, "quantization_config", None) is not None:
        return  # its own reader undid it
    parameters = {name for name, _ in model.named_parameters()}
    odd = [
        (name, dtype)
        for name, dtype in _stored_dtypes(model_path)
        if dtype not in PLAIN and (name.endswith(".weight") or name in parameters)
    ]
    if odd:
        first = odd[0][1]
        raise LoadError(
            f"{files} hold weights that are stored as {first} ({_shown([name for name, dtype in odd if dtype == first])}), and "
            "config.json names no quantisation, so they would be taken for the weights themselves. Give the model that it was "
            "quantised from"
        )


def _stored_dtypes(model_path: str) -> Iterator[tuple[str, str]]:
    """Name and data type of each tensor in the safetensors files of a folder, or of a hub id in the cache."""
    from huggingface_hub import get_local_safetensors_metadata, try_to_load_from_cache
    from huggingface_hub.errors import NotASafetensorsRepoError

    cached = None if Path(model_path).is_dir() else try_to_load_from_cache(model_path, "config.json")
    folder = Path(cached).parent if isinstance(cached, str) else Path(model_path)
    if not folder.is_dir():
        return
    try:
        found = get_local_safetensors_metadata(folder)
    except NotASafetensorsRepoError:  # pytorch_model.bin
        return
    for file in found.files_metadata.values():
        for name, tensor in file.tensors.items():
            yield name, str(tensor.dtype)


def _refuse_more_layers(files: str, unexpected: Iterable[str], model: Any) -> None:
    """Layers of the model's own lists, numbered beyond those that it has and those that config.json declares beside them."""
    base = f"{model.base_model_prefix}."
    has: dict[str, int] = {}
    for place, number, _ in _layers(model.state_dict(), base):
        has[place] = max(has.get(place, 0), number + 1)
    beside = _for_several_tokens(model.config)
    more = [(number + 1, has[place], name) for place, number, name in _layers(unexpected, base) if place in has]
    more = [layer for layer in more if layer[0] > layer[1] + beside]
    if more:
        found, declared, _ = max(more)
        setting = (getattr(model.config, "attribute_map", None) or {}).get("num_hidden_layers", "num_hidden_layers")
        raise LoadError(
            f"{files} hold {found} layers and config.json declares {declared}"
            f"{f' and {beside} for several tokens at once' if beside else ''}: {_shown([name for *_, name in more])} would be "
            f"left out without a word. Set {setting} = {found - beside} in config.json, or save the shorter model whole "
            "(save_pretrained)"
        )


def _layers(names: Iterable[str], base: str) -> Iterator[tuple[str, int, str]]:
    """The list that a weight is in, the number of its layer there, its name; with or without the name of the model's body."""
    for name in names:
        if found := _LAYER.match(name.removeprefix(base)):
            yield found[1], int(found[2]), name


def _for_several_tokens(config: Any) -> int:
    """DeepSeek's and GLM's num_nextn_predict_layers, mtp_num_hidden_layers and their kin."""
    fields = config.get_text_config().to_dict().items()
    return sum(value for name, value in fields if type(value) is int and _SEVERAL_TOKENS.search(name))


def _shown(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
