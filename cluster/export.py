"""A run's newest adapter for the world outside: as a PEFT adapter, or merged into the whole model."""

import tempfile
from pathlib import Path

from cluster.adapters import newest_adapter_folder, read_adapter
from cluster.run_dir import read_run
from contracts.adapter import Adapter
from contracts.durable import sync_folder
from contracts.errors import ConfigError
from contracts.peft_folder import peft_files, write_peft_folder


def export_run(run_path: Path, out: Path, *, merge: bool) -> str:
    """Writes `out`; returns what to tell the user. Raises ConfigError if `out` holds something already."""
    run = read_run(run_path)
    if run.config.model.scripted:
        raise ConfigError(f"{run_path} was a scripted run: it has no model to export")
    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"{out} is not empty; choose another folder")
    adapter = read_adapter(newest_adapter_folder(run_path / "adapters"))
    name, model_path = adapter.manifest.name, run.model_path
    if merge:
        _write_merged(model_path, adapter, out)
        sync_folder(out)
        return f"wrote {out}: the model with {name} merged in; AutoModelForCausalLM.from_pretrained('{out}') loads it"
    out.mkdir(parents=True, exist_ok=True)
    for file, data in peft_files(adapter).items():
        (out / file).write_bytes(data)
    _write_tokenizer(model_path, out)
    sync_folder(out)
    return f"wrote {out}: PEFT adapter {name}; PeftModel.from_pretrained(base, '{out}') loads it on {model_path}"


def _write_merged(model_path: str, adapter: Adapter, out: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(model_path, dtype="auto")
    with tempfile.TemporaryDirectory() as folder:  # PEFT reads nothing of the run's own folder
        beside = PeftModel.from_pretrained(base, str(write_peft_folder(adapter, Path(folder))))
        beside.merge_and_unload().save_pretrained(out)
    _write_tokenizer(model_path, out)


def _write_tokenizer(model_path: str, out: Path) -> None:
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(model_path).save_pretrained(out)
