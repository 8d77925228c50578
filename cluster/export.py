"""A run's newest adapter for the world outside: as a PEFT adapter, or merged into the whole model."""

import shutil
from pathlib import Path

from cluster.adapters import MANIFEST_FILE, newest_adapter_folder
from cluster.run_dir import read_run
from contracts.errors import ConfigError


def export_run(run_path: Path, out: Path, *, merge: bool) -> str:
    """Writes `out`; returns what to tell the user. Raises ConfigError if `out` holds something already."""
    run = read_run(run_path)
    if run.config.model.scripted:
        raise ConfigError(f"{run_path} was a scripted run: it has no model to export")
    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"{out} is not empty; choose another folder")
    adapter = newest_adapter_folder(run_path / "adapters")
    model_path = run.manifest["model_path"]
    if merge:
        _write_merged(model_path, adapter, out)
        return f"wrote {out}: the model with {adapter.name} merged in; AutoModelForCausalLM.from_pretrained('{out}') loads it"
    shutil.copytree(adapter, out, ignore=shutil.ignore_patterns(MANIFEST_FILE), dirs_exist_ok=True)
    _write_tokenizer(model_path, out)
    return (
        f"wrote {out}: PEFT adapter {adapter.name}; PeftModel.from_pretrained(base, '{out}') loads it on {model_path}"
    )


def _write_merged(model_path: str, adapter: Path, out: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(model_path, dtype="auto")
    PeftModel.from_pretrained(base, str(adapter)).merge_and_unload().save_pretrained(out)
    _write_tokenizer(model_path, out)


def _write_tokenizer(model_path: str, out: Path) -> None:
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(model_path).save_pretrained(out)
