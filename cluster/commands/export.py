"""One of a run's adapters for the world outside: as a PEFT adapter, or merged into the whole model.

Merged in float32 and written in float32: a bfloat16 file rounds small updates away (learner/merged_survival.py). Who asks
for another data type is told how much of the adapter is left in it.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.launch.environment import apply_environment
from cluster.record.adapter_registry import adapter_folder, read_adapter
from cluster.record.run_view import read_run
from contracts.adapter import Adapter
from contracts.errors import ConfigError
from loading.load_errors import loading
from loading.whole_model import WANTED, refuse_holes
from storage.durable import place_folder, sync_folder
from storage.peft_folder import peft_files, write_peft_folder

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel

DTYPES = ("float32", "bfloat16", "float16")
_OF_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff")
_STILL_THERE = "The run's manifest.json names where it was: is it still there, and whole?"


def export_run(
    run_path: Path, out: Path, *, merge: bool, dtype: str = "float32", policy_version: int | None = None
) -> str:
    """Writes `out`; returns what to tell the user. dtype: of the merged model's file; an adapter keeps its own.
    policy_version: None is the newest that the run keeps. Raises ConfigError if `out` holds something already or the data type
    cannot be had, DataError for a version that the run does not keep."""
    if dtype not in DTYPES:
        raise ConfigError(f"--dtype {dtype}: a merged model is written in one of {', '.join(DTYPES)}")
    if dtype != "float32" and not merge:
        raise ConfigError(
            f"--dtype {dtype} is of a merged model: add --merge, or leave it out (the adapter is exact as it is)"
        )
    run = read_run(run_path)
    apply_environment(run.config.cluster.env)
    if run.config.model.scripted:
        raise ConfigError(f"{run_path} was a scripted run: it has no model to export")
    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"{out} is not empty; choose another folder")
    adapter = read_adapter(adapter_folder(run_path / "adapters", policy_version))
    name, model_path = adapter.manifest.name, run.model_path
    with _placed_whole(out) as folder:
        if merge:
            kept = _write_merged(model_path, adapter, folder, dtype)
        else:
            _write_adapter(model_path, adapter, folder)
    if not merge:
        return f"wrote {out}: PEFT adapter {name}; PeftModel.from_pretrained(base, '{out}') loads it on {model_path}"
    loss = "" if dtype == "float32" else f", {kept:.1%} of the adapter is left in it (float32 keeps all)"
    return (
        f"wrote {out}: the model with {name} merged in, in {dtype}{loss}; AutoModelForCausalLM.from_pretrained('{out}', "
        'dtype="auto") loads it'
    )


@contextmanager
def _placed_whole(out: Path) -> Iterator[Path]:
    """A folder beside `out` that takes its name once everything is in it: a failure leaves nothing behind, and another try
    finds no half of a model. Raises ConfigError where it cannot be written."""
    temporary: Path | None = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
        yield temporary
        temporary.chmod(0o755)
        sync_folder(temporary)
        if out.exists():
            out.rmdir()  # empty, or `export_run` had refused it
        place_folder(temporary, out)
    except OSError as error:
        raise ConfigError(f"cannot write {out}: {error}. Choose a folder that can be written and has room") from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _write_adapter(model_path: str, adapter: Adapter, out: Path) -> None:
    for file, data in peft_files(adapter).items():
        (out / file).write_bytes(data)
    _write_tokenizer(model_path, out)


def _write_merged(model_path: str, adapter: Adapter, out: Path, dtype: str) -> float:
    """Returns the share of the adapter that is left in what was written."""
    import torch
    from peft import PeftModel
    from torch import nn
    from transformers import AutoModelForCausalLM

    from learner.lora_forward import frozen_weight, lora_layers
    from learner.merged_survival import survival

    written_in: torch.dtype = getattr(torch, dtype)
    with loading(f"cannot load the model {model_path}", _STILL_THERE):
        found: Any = AutoModelForCausalLM.from_pretrained(
            model_path, dtype=torch.float32, trust_remote_code=False, **WANTED
        )
    base, info = found
    refuse_holes(model_path, info, base)
    _mend_generation_config(base)
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

    with loading(f"cannot load a tokenizer from {model_path}", _STILL_THERE):
        tokenizer = AutoTokenizer.from_pretrained(model_path, trust_remote_code=False)
    tokenizer.save_pretrained(out)


def _mend_generation_config(model: "PreTrainedModel") -> None:
    """transformers reads a generation_config.json that it refuses to write: mostly greedy decoding with sampling's numbers
    beside it, which act on nothing. Those are left out; where more is wrong, all but the tokens that begin, end and pad."""
    config = model.generation_config
    if config is None or _can_be_written(config):
        return
    if not config.do_sample:
        for number in _OF_SAMPLING:
            setattr(config, number, None)
    if not _can_be_written(config):
        tokens = {name: getattr(config, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
        # Files of the first Llama name a pad token -1, which is none.
        model.generation_config = type(config)(
            **{n: t for n, t in tokens.items() if not (isinstance(t, int) and t < 0)}
        )


def _can_be_written(config: "GenerationConfig") -> bool:
    try:
        config.validate(strict=True)
    except ValueError:
        return False
    return True
