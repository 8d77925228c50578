"""The vLLM engine: continuous batching, several policy versions at once. The only file that imports vllm.

    adapter bytes -> a folder of this process -> add_lora(name and id of the version) -> requests that name it

A request names one exact version and finishes on it: an update neither pauses, drains nor aborts anything. Names and
integer ids come from the version number, which is never used twice, and nothing is reloaded in place.

Known faults of the CPU build 0.32, avoided by construction:
- a request without an adapter in a batch with adapters may be answered by one of them: no request here is without one
  (the untrained policy is version 0, a real adapter with B = 0);
- log-probs of a prompt, asked for while other requests decode, kill the engine if LoRA covers the head (the head's
  adapter indices are those of the sampled rows): LoRA is kept to the layers that memr adapts, never the head;
- a request with a seed of its own kills the engine once its prefill is split: no request here carries a seed. Equal
  leases therefore give equal rollouts on the transformers engine only.

Only public calls: AsyncEngineArgs, AsyncLLM, SamplingParams, LoRARequest.
"""

import asyncio
import contextlib
import dataclasses
import itertools
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM
from vllm import SamplingParams
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.lora.request import LoRARequest
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError

from actors.config import VllmSettings
from contracts.adapter import Adapter
from contracts.errors import AdapterMissingError, EngineError, LoadError, MemrError
from contracts.ports import Generation, GenerationRequest, Tokenizer
from contracts.rollout import FinishReason
from loading.load_errors import error_text
from storage.peft_folder import write_peft_folder

_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # the ranks vLLM has room for
_CPU_KV_CACHE_BYTES = 2**30
_MAX_SOCKET_FOLDER = 65  # a socket's path has at most 107 bytes, and vLLM adds a slash and a UUID or two
_REASONS = {"stop": FinishReason.STOP, "length": FinishReason.LENGTH, "abort": FinishReason.ABORT}


@dataclass(frozen=True, slots=True)
class VllmLimits:
    """What an engine is built for. max_loras: adapters that are served at the same time. max_model_len: tokens of a
    prompt with its answer. start_s: seconds that the engine may take to start."""

    dtype: str
    on_cpu: bool
    max_loras: int
    max_lora_rank: int
    max_model_len: int
    seed: int
    start_s: float


class VllmEngine:
    """contracts.ports.AsyncEngine over one AsyncLLM. Belongs to one event loop."""

    continuous = True

    def __init__(self, llm: AsyncLLM, tokenizer: Tokenizer, max_model_len: int, scratch: Path | None = None) -> None:
        self._llm = llm
        self._eos = sorted(tokenizer.eos_token_ids)
        self._max_model_len = max_model_len
        self._loras: dict[int, LoRARequest] = {}
        self._folder = Path(tempfile.mkdtemp(prefix="memr-adapters-", dir=scratch))
        self._serial = itertools.count()
        self._changing = asyncio.Lock()  # a version that goes and comes back must not lose its files

    @classmethod
    async def start(
        cls,
        model_path: str,
        tokenizer: Tokenizer,
        settings: VllmSettings,
        limits: VllmLimits,
        scratch: Path | None = None,
    ) -> "VllmEngine":
        """scratch: a folder that goes with this process, for its adapters and vLLM's sockets.

        Raises LoadError where vLLM cannot load the model, EngineError where it does not start in time.
        """
        if scratch is not None and len(str(scratch)) <= _MAX_SOCKET_FOLDER:
            os.environ["VLLM_RPC_BASE_PATH"] = str(scratch)
        try:
            arguments = AsyncEngineArgs(
                lora_target_modules=await asyncio.to_thread(adaptable_layers, model_path),
                **engine_arguments(model_path, settings, limits),
            )
            async with asyncio.timeout(limits.start_s):
                llm = await asyncio.to_thread(AsyncLLM.from_engine_args, arguments)
        except TimeoutError as error:
            raise EngineError(
                f"vLLM did not start within {limits.start_s:.0f} s; raise cluster.worker_start_s for a large model"
            ) from error
        except MemrError:
            raise
        except Exception as error:  # vLLM raises whatever its configuration, its loaders and its processes raise
            raise LoadError(
                f"vLLM cannot serve {model_path}: {error_text(error)}. actors.engine = 'transformers' is the way for models "
                "that vLLM does not know"
            ) from error
        return cls(llm, tokenizer, limits.max_model_len, scratch)

    async def load_adapter(self, adapter: Adapter) -> None:
        """Raises ValueError for weights that vLLM does not accept."""
        manifest = adapter.manifest
        async with self._changing:
            if manifest.policy_version in self._loras:
                return
            folder = await asyncio.to_thread(write_peft_folder, adapter, self._folder)
            request = LoRARequest(manifest.name, manifest.policy_version + 1, str(folder))
            try:
                with self._engine_errors():
                    await self._llm.add_lora(request)
            except EngineError:
                raise
            except Exception as error:  # vLLM wraps whatever its engine process said into a plain Exception
                shutil.rmtree(folder, ignore_errors=True)
                raise ValueError(f"{manifest.name}: vLLM refuses the adapter: {error}") from error
            self._loras[manifest.policy_version] = request

    async def drop_adapter(self, policy_version: int) -> None:
        async with self._changing:
            request = self._loras.pop(policy_version, None)
            if request is None:
                return
            with self._engine_errors():
                await self._llm.remove_lora(request.lora_int_id)
            shutil.rmtree(request.lora_path, ignore_errors=True)

    async def generate(
        self, requests: Sequence[GenerationRequest], policy_version: int, deadline_s: float
    ) -> list[list[Generation]]:
        """Samples still running `deadline_s` seconds from now end as TIMEOUT, without their tokens.

        Every sample is a request of its own, so that one that hangs takes no other with it.
        """
        lora = self._lora(policy_version)
        samples = [asyncio.ensure_future(self._sample(r, lora, deadline_s)) for r in requests for _ in r.seeds]
        try:
            generations = iter(await asyncio.gather(*samples))
        finally:
            for sample in samples:
                sample.cancel()
        return [[next(generations) for _ in request.seeds] for request in requests]

    async def score(self, tokens_P: NDArray[np.int32], policy_version: int) -> NDArray[np.float32]:
        logprobs_P = np.zeros(len(tokens_P), np.float32)
        if len(tokens_P) < 2:
            return logprobs_P
        parameters = SamplingParams(
            max_tokens=1, prompt_logprobs=0, detokenize=False, output_kind=RequestOutputKind.FINAL_ONLY
        )
        with self._engine_errors():
            async for output in self._outputs(tokens_P, parameters, self._lora(policy_version)):
                for i, entry in enumerate(output.prompt_logprobs[1:], start=1):
                    logprobs_P[i] = entry[int(tokens_P[i])].logprob
        return logprobs_P

    def close(self) -> None:
        self._llm.shutdown(timeout=5.0)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _lora(self, policy_version: int) -> LoRARequest:
        found = self._loras.get(policy_version)
        if found is None:
            raise AdapterMissingError(
                f"vLLM holds versions {sorted(self._loras)}, not {policy_version}; adopt it first"
            )
        return found

    async def _sample(self, request: GenerationRequest, lora: LoRARequest, deadline_s: float) -> Generation:
        room = self._max_model_len - len(request.prompt_P)
        if room < 1:
            return _unfinished(FinishReason.OVERLONG)
        parameters = SamplingParams(
            temperature=request.sampling.temperature,
            max_tokens=min(request.sampling.max_new_tokens, room),
            stop_token_ids=self._eos,
            logprobs=0,  # the sampled token's alone
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        try:
            with self._engine_errors():
                async with asyncio.timeout(deadline_s):
                    async for output in self._outputs(request.prompt_P, parameters, lora):
                        generation = _generation(output, lora)
                        cut = room < request.sampling.max_new_tokens and generation.finish_reason is FinishReason.LENGTH
                        # Cut by the engine's room, not by the limit that was asked for: no answer of that limit.
                        return (
                            dataclasses.replace(generation, finish_reason=FinishReason.OVERLONG) if cut else generation
                        )
        except TimeoutError:
            return _unfinished(FinishReason.TIMEOUT)  # leaving the generator has aborted the request
        return _unfinished(FinishReason.ABORT)

    def _outputs(
        self, tokens_P: NDArray[np.int32], parameters: SamplingParams, lora: LoRARequest
    ) -> AsyncIterator[Any]:
        """The salt keeps cached prefixes of one version from every other version."""
        prompt = {"prompt_token_ids": tokens_P.tolist(), "cache_salt": lora.lora_name}
        outputs: AsyncIterator[Any] = self._llm.generate(
            prompt,  # type: ignore[arg-type]
            parameters,
            request_id=f"{lora.lora_name}/{next(self._serial)}",
            lora_request=lora,
        )
        return outputs

    @contextlib.contextmanager
    def _engine_errors(self) -> Iterator[None]:
        try:
            yield
        except EngineDeadError as error:
            raise EngineError(f"vLLM's engine process died: {error}; the worker's log has its last output") from error


def engine_arguments(model_path: str, settings: VllmSettings, limits: VllmLimits) -> dict[str, Any]:
    """AsyncEngineArgs' fields. Processed log-probs: of the distribution that was sampled from, temperature included.

    generation_config "vllm": a model's own generation_config.json may set top-p or penalties, which the learner could
    not account for.
    """
    return {
        "model": model_path,
        "tokenizer": model_path,
        "dtype": limits.dtype,
        "max_model_len": limits.max_model_len,
        "max_num_seqs": settings.max_num_seqs,
        "enable_lora": True,
        "max_loras": limits.max_loras,
        # One of an evaluation, a new one and a passing copy of it to prove, while pinned ones stay.
        "max_cpu_loras": limits.max_loras + 4,
        "max_lora_rank": next(rank for rank in _RANKS if rank >= limits.max_lora_rank),
        "enable_prefix_caching": True,
        "logprobs_mode": "processed_logprobs",
        "generation_config": "vllm",
        "trust_remote_code": False,
        "enforce_eager": settings.enforce_eager or limits.on_cpu,
        "tensor_parallel_size": settings.tensor_parallel_size,
        "disable_log_stats": True,
        "seed": limits.seed,
    } | _memory_arguments(settings, on_cpu=limits.on_cpu)


def _memory_arguments(settings: VllmSettings, *, on_cpu: bool) -> dict[str, Any]:
    """On a GPU always the share too: vLLM wants so much free at its start, 0.92 of the card unless told, whatever the size
    of the cache. A given size of the cache wins over what the share leaves."""
    kv_cache_bytes = settings.kv_cache_bytes or (_CPU_KV_CACHE_BYTES if on_cpu else None)
    share = {} if on_cpu else {"gpu_memory_utilization": settings.gpu_memory_utilization}
    return share | ({"kv_cache_memory_bytes": kv_cache_bytes} if kv_cache_bytes else {})


def adaptable_layers(model_path: str) -> list[str]:
    """Last names of the model's linear layers, the head left out; no weights are read."""
    config = AutoConfig.from_pretrained(model_path, trust_remote_code=False)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)  # type: ignore[no-untyped-call]
    head = model.get_output_embeddings()
    return sorted(
        {path.rsplit(".", 1)[-1] for path, m in model.named_modules() if isinstance(m, nn.Linear) and m is not head}
    )


def _generation(output: Any, lora: LoRARequest) -> Generation:
    """Raises EngineError if another adapter answered, or a log-prob is no number."""
    if output.lora_request is None or output.lora_request.lora_int_id != lora.lora_int_id:
        raise EngineError(f"asked {lora.lora_name}, answered by {output.lora_request}: restart the worker")
    [sample] = output.outputs
    logprobs_T = np.array(
        [entry[token].logprob for token, entry in zip(sample.token_ids, sample.logprobs, strict=True)], np.float32
    )
    if not np.isfinite(logprobs_T).all():
        raise EngineError(f"{lora.lora_name}: non-finite log-probs; the adapter or the model is damaged")
    reason = _REASONS.get(sample.finish_reason, FinishReason.ERROR)
    return Generation(np.array(sample.token_ids, np.int32), logprobs_T, reason)


def _unfinished(reason: FinishReason) -> Generation:
    return Generation(np.zeros(0, np.int32), np.zeros(0, np.float32), reason)
