"""From settings to an engine: the one place that knows which engines exist."""

from pathlib import Path

from actors.char_tokenizer import CharTokenizer
from actors.config import ActorSettings
from actors.scripted_engine import ScriptedEngine
from contracts.errors import ConfigError, DataError
from contracts.ports import Engine, Tokenizer
from tasks.prompts import load_tokenizer


def load_worker_tokenizer(settings: ActorSettings, model_path: str) -> Tokenizer:
    """The model's tokenizer, or single characters for the scripted engine. Raises DataError where there is none."""
    if settings.engine == "scripted":
        return CharTokenizer(settings.scripted.alphabet)
    return load_tokenizer(model_path)


def load_engine(settings: ActorSettings, model_path: Path | str, tokenizer: Tokenizer) -> Engine:
    """The engine that [actors] asks for; `model_path` (a folder or a hub id) is read by real models only.

    Sets the process's torch threads. Raises ConfigError or DataError that say what to change.
    """
    if settings.engine == "transformers":
        return _load_transformers(settings, model_path, tokenizer)
    if not isinstance(tokenizer, CharTokenizer):
        raise ConfigError(
            f"actors.engine is scripted and the tokenizer is {type(tokenizer).__name__}; "
            f"the scripted engine writes characters: build a CharTokenizer from actors.scripted.alphabet"
        )
    return ScriptedEngine(tokenizer, settings.scripted)


def _load_transformers(settings: ActorSettings, model_path: Path | str, tokenizer: Tokenizer) -> Engine:
    # Imported here: a scripted run must start in milliseconds and needs neither library.
    import torch
    from torch import nn
    from transformers import AutoModelForCausalLM

    from actors.transformers_engine import TransformersEngine

    device = settings.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(settings.torch_threads)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            str(model_path), dtype=getattr(torch, settings.dtype), attn_implementation="sdpa", trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        raise DataError(f"cannot load the model at {model_path}: {error}") from error
    nn.Module.to(model, device=torch.device(device))
    return TransformersEngine(model, tokenizer, settings.lora_path, settings.max_batch_rows)
