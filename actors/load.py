"""From settings to an engine: the one place that knows which engines exist.

    actors.engine   EngineInputs -> contracts.ports.AsyncEngine     ENGINES, or a function of the user's as FILE.py:name

What is asked of an engine before it is loaded is in engine_kinds.py, under the same names.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.config import LEAST_ADAPTERS_KEPT, ActorSettings, VllmSettings
from actors.engine_kinds import EngineName
from actors.engines.scripted.char_tokenizer import CharTokenizer
from actors.engines.scripted.scripted_engine import ScriptedEngine
from actors.engines.torch_decoding.one_thread_engine import OneThreadEngine
from actors.engines.users_engine import start_users_engine
from contracts.errors import ConfigError, LoadError
from contracts.ports import AsyncEngine, Engine, Tokenizer
from loading.device import cards, choose_device
from loading.dotted_path import is_dotted, load_dotted
from loading.load_errors import loading
from loading.whole_model import WANTED, refuse_holes, refuse_no_numbers
from tasks.prompts import load_tokenizer

SCRIPTED_MODEL = "scripted"
SETTING = "actors.engine"


def load_worker_tokenizer(settings: ActorSettings, model_path: str) -> Tokenizer:
    """The model's tokenizer, or single characters where there is no model. Raises LoadError where there is none."""
    if not settings.engine_kind.takes_model or model_path == SCRIPTED_MODEL:
        return CharTokenizer(settings.scripted.alphabet)
    return load_tokenizer(model_path)


@dataclass(frozen=True, slots=True)
class EngineNeeds:
    """What an engine must have room for, derived from the whole configuration.

    seed: of an engine that takes no seed per request; another one for every worker, or they would sample alike.
    max_adapters: policy versions that are served at the same time. start_s: seconds that the start may take.
    """

    max_lora_rank: int
    max_model_len: int
    seed: int = 0
    max_adapters: int = LEAST_ADAPTERS_KEPT
    start_s: float = VllmSettings.start_s


@dataclass(frozen=True, slots=True, eq=False)
class EngineInputs:
    """What an engine is made of. model_path: a folder or a hub id, "scripted" for no model. scratch: a folder for adapters on
    their way into an engine that reads files; None: the engine makes its own."""

    settings: ActorSettings
    model_path: str
    tokenizer: Tokenizer
    needs: EngineNeeds
    scratch: Path | None = None


async def start_engine(
    settings: ActorSettings,
    model_path: Path | str,
    tokenizer: Tokenizer,
    needs: EngineNeeds,
    scratch: Path | None = None,
) -> AsyncEngine:
    """The engine that [actors] asks for, ready for an event loop. Raises ConfigError, LoadError, EngineError."""
    given = EngineInputs(settings, str(model_path), tokenizer, needs, scratch)
    if is_dotted(settings.engine):
        return await start_users_engine(settings.engine, SETTING, given)
    return await ENGINES[settings.engine](given)  # type: ignore[index]


def refuse_missing(settings: ActorSettings) -> None:
    """Raises ConfigError for a user's engine that is not there. Loads without torch, unless the user's file does not."""
    for pool in settings.by_pool.values():
        if is_dotted(pool.engine):
            load_dotted(pool.engine, SETTING)


async def _start_plain(given: EngineInputs) -> AsyncEngine:
    return OneThreadEngine(await asyncio.to_thread(load_engine, given.settings, given.model_path, given.tokenizer))


async def _start_vllm(given: EngineInputs) -> AsyncEngine:
    settings, needs = given.settings, given.needs
    os.environ.setdefault("OMP_NUM_THREADS", str(settings.torch_threads))  # of vLLM's own processes; a run sets it too
    with loading(
        "actors.engine = 'vllm', and vLLM cannot be imported",
        "On a CPU `make setup` installs it; on a GPU install the extra `gpu`",
    ):
        from actors.engines.vllm_engine import VllmEngine, VllmLimits
    return await VllmEngine.start(
        given.model_path,
        given.tokenizer,
        settings.vllm,
        VllmLimits(
            dtype=settings.dtype,
            on_cpu=not _on_gpu(settings),
            max_loras=needs.max_adapters,
            max_lora_rank=needs.max_lora_rank,
            max_model_len=needs.max_model_len,
            seed=needs.seed,
            start_s=needs.start_s,
        ),
        given.scratch,
    )


ENGINES: Mapping[EngineName, Callable[[EngineInputs], Awaitable[AsyncEngine]]] = {
    "scripted": _start_plain,
    "transformers": _start_plain,
    "vllm": _start_vllm,
}


def _on_gpu(settings: ActorSettings) -> bool:
    """Raises ConfigError where a card is there that torch cannot use."""
    import torch

    usable, built_for = torch.cuda.is_available(), torch.version.cuda
    return choose_device(settings.device, "actors.device", usable=usable, built_for=built_for, there=cards()) == "cuda"


def load_engine(settings: ActorSettings, model_path: Path | str, tokenizer: Tokenizer) -> Engine:
    """A plain engine; `model_path` (a folder or a hub id) is read by real models only.

    Sets the process's torch threads. Raises ConfigError or LoadError that say what to change.
    """
    if settings.engine == "transformers":
        return _load_transformers(settings, model_path, tokenizer)
    if not isinstance(tokenizer, CharTokenizer):
        raise ConfigError(
            f"actors.engine is scripted and the tokenizer is {type(tokenizer).__name__}; "
            f"the scripted engine writes characters: build a CharTokenizer from ScriptedSettings.alphabet"
        )
    return ScriptedEngine(tokenizer, settings.scripted)


def _load_transformers(settings: ActorSettings, model_path: Path | str, tokenizer: Tokenizer) -> Engine:
    # Imported here: a scripted run must start in milliseconds and needs neither library.
    import torch
    from torch import nn
    from transformers import AutoModelForCausalLM
    from transformers.pytorch_utils import Conv1D

    from actors.engines.torch_decoding.transformers_engine import TransformersEngine

    device = "cuda" if _on_gpu(settings) else "cpu"
    torch.set_num_threads(settings.torch_threads)
    with loading(
        f"cannot load the model at {model_path}", "Its files must be whole, and of a kind that transformers reads"
    ):
        found: Any = AutoModelForCausalLM.from_pretrained(
            str(model_path), dtype=getattr(torch, settings.dtype), trust_remote_code=False, **WANTED
        )
    model, info = found
    refuse_holes(str(model_path), info, model)
    refuse_no_numbers(str(model_path), model.named_parameters())
    conv1d = next((name for name, module in model.named_modules() if isinstance(module, Conv1D)), None)
    if conv1d is not None:
        raise LoadError(
            f"the model at {model_path} has layers ({conv1d} and others) that are transformers' Conv1D, as GPT-2's are; adapters "
            "go on nn.Linear layers alone. Choose a base model of another family"
        )
    nn.Module.to(model, device=torch.device(device))
    with loading(f"the transformers engine cannot take the model at {model_path}", "Choose another base model"):
        return TransformersEngine(
            model, tokenizer, "merged" if settings.merges_lora else "unmerged", settings.max_batch_rows
        )
