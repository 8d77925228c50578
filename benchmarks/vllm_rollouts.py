"""Which engine on a CPU? Tokens per second of the transformers engine and of vLLM: same model, adapter and load.

Load: groups x rollouts samples of exactly the same number of new tokens (no end token), a rank-16 LoRA with non-zero B
on all linear layers. Each engine alone, warmed once, median of the repeats.
"""

import argparse
import asyncio
import os
import statistics
import time
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from actors.config import ActorSettings
from actors.load import EngineNeeds, start_engine
from benchmarks.results_table import show
from benchmarks.rollout_engine import EndlessTokenizer, random_adapter
from contracts.adapter import Adapter
from contracts.ports import GenerationRequest
from contracts.problem import Sampling


async def measure(settings: ActorSettings, adapter: Adapter, args: argparse.Namespace) -> dict[str, float]:
    started = time.perf_counter()
    needs = EngineNeeds(adapter.manifest.lora.r, args.prompt_tokens + args.new_tokens + 8)
    engine = await start_engine(settings, args.model, EndlessTokenizer(), needs)  # type: ignore[arg-type]
    start_s = time.perf_counter() - started
    try:
        started = time.perf_counter()
        await engine.load_adapter(adapter)
        load_s = time.perf_counter() - started
        random = np.random.default_rng(0)
        prompts = [random.integers(3, 1000, args.prompt_tokens).astype(np.int32) for _ in range(args.groups)]
        sampling = Sampling(1.0, args.new_tokens)
        speeds = []
        for repeat in range(args.repeats + 1):
            requests = [
                GenerationRequest(p, tuple(range(1000 * i + repeat, 1000 * i + repeat + args.rollouts)), sampling)
                for i, p in enumerate(prompts)
            ]
            started = time.perf_counter()
            results = await engine.generate(requests, adapter.manifest.policy_version, 3600.0)
            tokens = sum(len(generation.tokens_T) for group in results for generation in group)
            speeds.append(tokens / (time.perf_counter() - started))
        return {"start s": start_s, "adapter load s": load_s, "tokens per second": statistics.median(speeds[1:])}
    finally:
        engine.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="folder of a causal model in safetensors")
    for name, default in (("groups", 8), ("rollouts", 8), ("prompt-tokens", 80), ("new-tokens", 32), ("repeats", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16", "float32"])
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    adapter = random_adapter(AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32))
    rows: list[dict[str, Any]] = []
    for engine in ("transformers", "vllm"):
        for dtype in args.dtypes:
            settings = ActorSettings.model_validate(
                {"engine": engine, "dtype": dtype, "device": "cpu", "torch_threads": args.threads}
            )
            found = asyncio.run(measure(settings, adapter, args))
            rows.append({"engine": engine, "dtype": dtype} | found)
    load = f"{args.groups} x {args.rollouts} samples of {args.new_tokens} tokens after {args.prompt_tokens}"
    show("vllm_rollouts", f"Tokens per second with a LoRA adapter on the CPU: {load}", rows, f"{args.threads} threads")


if __name__ == "__main__":
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    main()
