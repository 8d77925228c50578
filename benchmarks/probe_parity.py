"""Claim: engines and learner compute the same log-probs; how far rounding moves them, by engine and data types.

The table behind actors/proof.py's tolerances. Sequences: prompts of the configuration's task with answers that version
0 sampled, scored under a trained adapter (--run: a run directory; its newest adapter) by the learner and every engine.
The last columns say what each seeded fault would show: the base model's log-probs in place of the adapter's (an adapter
without effect), and another version's.
"""

import argparse
import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actors.config import ActorSettings
from actors.load import EngineNeeds, load_worker_tokenizer, start_engine
from actors.proof import difference
from benchmarks.results_table import show
from cluster.adapters import read_adapter
from cluster.run_dir import read_run
from contracts.adapter import Adapter, Probe
from contracts.ports import GenerationRequest
from contracts.problem import Sampling
from learner.policy import LoraPolicy
from tasks.load import load_task

Sequences = Sequence[NDArray[np.int32]]


def probes_of(policy: LoraPolicy, sequences: Sequences) -> list[Probe]:
    with policy.reference():
        base = [policy.sequence_logprobs(tokens_P) for tokens_P in sequences]
    return [Probe(t, policy.sequence_logprobs(t), b) for t, b in zip(sequences, base, strict=True)]


async def engine_scores(
    actors: ActorSettings, model_path: str, adapter: Adapter, sequences: Sequences
) -> list[NDArray[np.float32]]:
    tokenizer = load_worker_tokenizer(actors, model_path)
    engine = await start_engine(actors, model_path, tokenizer, EngineNeeds(adapter.manifest.lora.r, 512))
    try:
        await engine.load_adapter(adapter)
        return [await engine.score(tokens_P, adapter.manifest.policy_version) for tokens_P in sequences]
    finally:
        engine.close()


async def sampled_sequences(model_path: str, adapter: Adapter, prompts: Sequences) -> list[NDArray[np.int32]]:
    """Prompts with what the adapter answers."""
    actors = ActorSettings(dtype="float32", max_new_tokens=24)
    tokenizer = load_worker_tokenizer(actors, model_path)
    engine = await start_engine(actors, model_path, tokenizer, EngineNeeds(adapter.manifest.lora.r, 512))
    requests = [GenerationRequest(prompt_P, (i,), Sampling(1.0, 24)) for i, prompt_P in enumerate(prompts)]
    await engine.load_adapter(adapter)
    results = await engine.generate(requests, adapter.manifest.policy_version, 600.0)
    engine.close()
    return [np.concatenate([p, r[0].tokens_T]) for p, r in zip(prompts, results, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="run directory with a trained adapter")
    parser.add_argument("--sequences", type=int, default=16)
    parser.add_argument("--engines", nargs="+", default=["merged", "side", "vllm"])
    args = parser.parse_args()
    run = read_run(args.run)
    model_path = run.manifest["model_path"]
    folders = sorted((args.run / "adapters").glob("v*"))
    adapter, earlier = read_adapter(folders[-1]), read_adapter(folders[-2])
    task = load_task(run.config.task)
    tokenizer = load_worker_tokenizer(ActorSettings(), model_path)
    prompts = [tokenizer.encode_chat(task.train_problem(i).messages) for i in range(args.sequences)]
    sequences = asyncio.run(sampled_sequences(model_path, adapter, prompts))
    probes: dict[str, list[Probe]] = {}
    other: dict[str, list[Probe]] = {}
    for dtype in ("float32", "bfloat16"):
        settings = run.config.learner.model_copy(update={"dtype": dtype})
        policy = LoraPolicy.load(model_path, settings, run.config.run.seed)
        policy.load_adapter_bytes(bytes(earlier.weights))
        other[dtype] = probes_of(policy, sequences)
        policy.load_adapter_bytes(bytes(adapter.weights))
        probes[dtype] = probes_of(policy, sequences)
    rows: list[dict[str, Any]] = []
    for name in args.engines:
        for engine_dtype in ("float32", "bfloat16"):
            choice: dict[str, Any] = {"engine": "vllm"} if name == "vllm" else {"lora_path": name}
            actors = ActorSettings.model_validate({"dtype": engine_dtype, "device": "cpu"} | choice)
            scores = asyncio.run(engine_scores(actors, model_path, adapter, sequences))
            for dtype, wanted in probes.items():
                found = difference(wanted, scores)
                without = difference(wanted, [probe.base_logprobs_P for probe in wanted])
                earlier_gap = difference(wanted, [probe.logprobs_P for probe in other[dtype]])
                rows.append(
                    {
                        "learner": dtype,
                        "engine": f"{name} {engine_dtype}",
                        "mean": found.mean,
                        "max": found.max,
                        "no effect: mean": without.mean,
                        "no effect: max": without.max,
                        f"v{earlier.manifest.policy_version} for v{adapter.manifest.policy_version}: mean": earlier_gap.mean,
                    }
                )
    show("probe_parity", f"|log p engine - log p learner| in nats over {sum(map(len, sequences))} tokens", rows)


if __name__ == "__main__":
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    main()
