"""An adapter as a folder in PEFT's form: what `PeftModel.from_pretrained` and vLLM load."""

import json
from pathlib import Path

from contracts.adapter import Adapter, AdapterManifest

WEIGHTS_FILE = "adapter_model.safetensors"
PEFT_CONFIG_FILE = "adapter_config.json"


def write_peft_folder(adapter: Adapter, directory: Path) -> Path:
    """A passing copy, `directory/v000123-<hash>/`, for an engine that reads files; returns the folder."""
    folder = directory / adapter.manifest.name
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in peft_files(adapter).items():
        (folder / name).write_bytes(data)
    return folder


def peft_files(adapter: Adapter) -> dict[str, bytes | memoryview]:
    """Weights and PEFT's configuration by file name."""
    config = json.dumps(_peft_config(adapter.manifest), indent=1).encode()
    return {WEIGHTS_FILE: adapter.weights, PEFT_CONFIG_FILE: config}


def _peft_config(manifest: AdapterManifest) -> dict[str, object]:
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": manifest.base_model,
        "r": manifest.lora.r,
        "lora_alpha": manifest.lora.alpha,
        "target_modules": list(manifest.lora.target_modules),
        "lora_dropout": 0.0,
        "bias": "none",
        "inference_mode": True,
    }
