"""A run's newest adapter for the world outside: as a PEFT adapter, or merged into the whole model.

Merged in float32 and written in float32: a bfloat16 file rounds small updates away (learner/merged_survival.py). Who asks
for another data type is told how much of the adapter is left in it.
"""

import tempfile
from pathlib import Path

from cluster.adapters import newest_adapter_folder, read_adapter
from cluster.run_dir import read_run
from contracts.adapter import Adapter
from contracts.durable import sync_folder
from contracts.errors import ConfigError
from contracts.peft_folder import peft_files, write_peft_folder

DTYPES = ("float32", "bfloat16", "float16")


def export_run(run_path: Path, out: Path, *, merge: bool, dtype: str = "float32") -> str:
    """Writes `out`; returns what to tell the user. dtype: of the merged model's file; an adapter keeps its own.
    Raises ConfigError if `out` holds something already or the data type cannot be had."""
    if dtype not in DTYPES:
        raise ConfigError(f"--dtype {dtype}: a merged model is written in one of {', '.join(DTYPES)}")
    if dtype != "float32" and not merge:
        raise ConfigError(
            f"--dtype {dtype} is of a merged model: add --merge, or leave it out (the adapter is exact as it is)"
        )
    run = read_run(run_path)
    if run.config.model.scripted:
        raise ConfigError(f"{run_path} was a scripted run: it has no model to export")
    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"{out} is not empty; choose another folder")
    adapter = read_adapter(newest_adapter_folder(run_path / "adapters"))
    name, model_path = adapter.manifest.name, run.model_path
    if merge:
        kept = _write_merged(model_path, adapter, out, dtype)
        sync_folder(out)
        loss = "" if dtype == "float32" else f", {kept:.1%} of the adapter is left in it (float32 keeps all)"
        return (
            f"wrote {out}: the model with {name} merged in, in {dtype}{loss}; AutoModelForCausalLM.from_pretrained('{out}', "
            'dtype="auto") loads it'
        )
    out.mkdir(parents=True, exist_ok=True)
    for file, data in peft_files(adapter).items():
        (out / file).write_bytes(data)
    _write_tokenizer(model_path, out)
    sync_folder(out)
    return f"wrote {out}: PEFT adapter {name}; PeftModel.from_pretrained(base, '{out}') loads it on {model_path}"


def _write_merged(model_path: str, adapter: Adapter, out: Path, dtype: str) -> float:
    """Returns the share of the adapter that is left in what was written."""
    import torch
    from peft import PeftModel
    from torch import nn
    from transformers import AutoModelForCausalLM

    from learner.lora_forward import frozen_weight, lora_layers
    from learner.merged_survival import survival

    written_in: torch.dtype = getattr(torch, dtype)
    base = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():  # PEFT reads nothing of the run's own folder
        beside = PeftModel.from_pretrained(base, str(write_peft_folder(adapter, Path(folder))))
        kept = survival(
            ((frozen_weight(layer), layer.get_delta_weight("default")) for layer in lora_layers(beside)),
            written_in,
        )
        merged = beside.merge_and_unload()
        nn.Module.to(merged, written_in)
        merged.save_pretrained(out)
    _write_tokenizer(model_path, out)
    return kept


def _write_tokenizer(model_path: str, out: Path) -> None:
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(model_path).save_pretrained(out)
