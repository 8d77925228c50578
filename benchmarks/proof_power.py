"""Claim: honest versions are served and dishonest ones never, at every data type, engine and size of update.

Versions come from real updates (policy gradient on rewards that need no right answer), one learner per learning rate and data
type; every version is published with its probes and proven by every engine. Then the same version is loaded with a fault in
between (the engine gets other bytes or another scale than the manifest speaks of), and must be refused at once.

Columns: versions and refusals of honest ones; their largest mean |difference| as a multiple of rounding, with the adapter and
with it amplified (limit: proof.TIMES_ROUNDING); refusals of each fault; the smallest difference that a fault made in the
amplified copy. Rows by how far the version moves a token's log-prob on average: the size of the effect.
"""

import argparse
import asyncio
import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from actors.config import ActorSettings
from actors.engines.torch_decoding.one_thread_engine import OneThreadEngine
from actors.load import EngineNeeds, load_engine, load_worker_tokenizer, start_engine
from actors.prover import Prover
from benchmarks.adapter_faults import FAULTS, STALE, Fault, FaultyEngine
from benchmarks.results_table import RESULTS, show
from cluster.config.run_config import RunConfig
from cluster.launch.model_store import PACKAGED_MODEL, resolve_model
from cluster.launch.probes import probe_sequences
from contracts.adapter import Adapter
from contracts.errors import ProofError
from contracts.ports import AsyncEngine, GenerationRequest, Tokenizer
from contracts.problem import Problem, Purpose, Sampling
from contracts.rollout import FinishReason, Rollout, RolloutGroup, ScoredGroup, TurnOutcome
from contracts.verdict import Scored
from learner.learner import Learner
from learner.policy import LoraPolicy
from tasks.load import load_task

Tensors = dict[str, Tensor]
Effects = tuple[float, ...]
EFFECTS: Effects = (0.0, 0.03, 0.1, 0.3, 1.0)
"""Lower edges of the rows, in nats."""

GROUPS, ROLLOUTS, NEW_TOKENS = 4, 4, 12


@dataclass
class Trainee:
    """One learner whose versions are made by real updates. config: [learner], [task] and [actors] of the run it stands for."""

    config: RunConfig
    model_path: str
    learner: Learner = field(init=False)
    tokenizer: Tokenizer = field(init=False)

    def __post_init__(self) -> None:
        settings, self.tokenizer = self.config.learner, load_worker_tokenizer(self.config.actors, self.model_path)
        self.task = load_task(self.config.task)
        probes = probe_sequences(self.config, self.task, self.tokenizer)
        policy = LoraPolicy.load(self.model_path, settings, seed=0)
        self.learner = Learner(policy, settings, self.tokenizer.fingerprint, probes, NEW_TOKENS)
        sampler = self.config.actors.model_copy(update={"lora_path": "unmerged", "dtype": settings.dtype})
        self._engine = load_engine(sampler, self.model_path, self.tokenizer)

    def versions(self) -> Iterator[Adapter]:
        """Version 0 and one more per update, without end."""
        while True:
            adapter = self.learner.publish()
            yield adapter
            self._engine.load_adapter(adapter)
            self.learner.step(self._groups(adapter.manifest.policy_version))
            self._engine.drop_adapter(adapter.manifest.policy_version)

    def _groups(self, version: int) -> list[ScoredGroup]:
        problems = [self.task.train_problem(version * GROUPS + i) for i in range(GROUPS)]
        seeds = tuple(range(version * ROLLOUTS, (version + 1) * ROLLOUTS))
        requests = [
            GenerationRequest(self.tokenizer.encode_chat(p.messages), seeds, Sampling(1.0, NEW_TOKENS))
            for p in problems
        ]
        results = self._engine.generate(requests, version, 600.0)
        return [self._group(*made, version) for made in zip(problems, requests, results, strict=True)]

    def _group(
        self, problem: Problem, request: GenerationRequest, generations: Sequence[Any], version: int
    ) -> ScoredGroup:
        rollouts = []
        for i, generation in enumerate(generations):
            text, tokens_T = self.tokenizer.decode(generation.tokens_T), generation.tokens_T
            stopped = generation.finish_reason is FinishReason.STOP
            reward = 0.5 * (problem.answer in text) + 0.3 * stopped + 0.02 * sum(c.isdigit() for c in text)
            rollouts.append(
                Rollout(
                    rollout_id=f"0/0/{i}",
                    tokens_T=tokens_T,
                    logprobs_T=generation.logprobs_T,
                    policy_mask_T=np.ones(len(tokens_T), np.bool_),
                    turn_ends_U=np.array([len(tokens_T)], np.int32),
                    outcomes=(TurnOutcome.DONE,),
                    finish_reason=generation.finish_reason,
                    text=text,
                    verdict=Scored(reward, reward > 0.5, {"reward": reward}),
                    seed=request.seeds[i],
                )
            )
        names = (problem.problem_id, problem.question, request.prompt_P, tuple(rollouts))
        group = RolloutGroup(0, *names, version, Purpose.TRAIN, 1.0, "w", 0, 0.0, 1.0)
        return ScoredGroup.without_bonus(group)


class Candidate:
    """An engine under proof, honest and with faults, before a worker's own prover, which remembers what it has proven."""

    def __init__(self, name: str, engine: AsyncEngine, settings: ActorSettings) -> None:
        self.name, self.engine = name, FaultyEngine(engine)
        self._prover = Prover(name, self.engine, settings)

    @property
    def levels(self) -> dict[str, float]:
        """Of the last version, as a multiple of rounding."""
        return self._prover.levels

    async def refusal(self, adapter: Adapter, fault: Callable[[Adapter], Adapter] | None = None) -> str | None:
        """Why this version is not served, None where it is; either way the engine does not hold it afterwards."""
        self.engine.fault = fault
        try:
            await self._prover.load_and_prove(adapter)
        except ProofError as error:
            return str(error)
        finally:
            self.engine.fault = None
        await self.engine.drop_adapter(adapter.manifest.policy_version)
        return None


def mean_effect(adapter: Adapter) -> float:
    """Nats that the version moves a token's log-prob by, mean of absolute values over the probes."""
    moves = [np.abs(p.float32.adapted_P - p.float32.base_P)[1:] for p in adapter.manifest.probes]
    return float(np.concatenate(moves).mean())


def run_config(learning_rate: float, dtype: str, max_operand: int) -> RunConfig:
    return RunConfig.model_validate(
        {
            "run": {"name": "proof-power"},
            "model": {"name": PACKAGED_MODEL},
            "task": {"kind": "arithmetic", "answer_form": "number", "max_operand": max_operand},
            "actors": {"engine": "transformers", "device": "cpu", "torch_threads": 1, "max_new_tokens": 16},
            "learner": {
                "dtype": dtype,
                "device": "cpu",
                "torch_threads": 1,
                "learning_rate": learning_rate,
                "lora_r": 16,
                "lora_alpha": 32,
                "mismatch_stop": 100.0,
                "num_updates": 100_000,
            },
        }
    )


async def candidate(kind: str, trainee: Trainee) -> Candidate:
    """kind: "merged" or "unmerged" (transformers), or "vllm"; then a data type: "unmerged bfloat16"."""
    path, dtype = kind.split()
    choice: dict[str, Any] = {"engine": "vllm"} if path == "vllm" else {"lora_path": path}
    settings = trainee.config.actors.model_copy(update={"dtype": dtype} | choice)
    if path != "vllm":
        return Candidate(kind, OneThreadEngine(load_engine(settings, trainee.model_path, trainee.tokenizer)), settings)
    room = trainee.config.task.max_prompt_tokens + settings.max_new_tokens
    needs = EngineNeeds(trainee.config.learner.lora_r, room)
    return Candidate(kind, await start_engine(settings, trainee.model_path, trainee.tokenizer, needs), settings)


def applied(fault: Fault, before: Adapter, adapter: Adapter) -> Adapter:
    return fault(adapter, before)


@dataclass
class Tally:
    """Of one engine and one size of effect."""

    versions: int = 0
    refused: list[str] = field(default_factory=list)
    adapted: float = 0.0  # largest honest difference, in units of rounding
    amplified: float = 0.0
    least: dict[str, float] = field(default_factory=dict)  # smallest difference of a fault in the amplified copy
    tried: dict[str, int] = field(default_factory=dict)
    caught: dict[str, int] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        faults = {name: f"{self.caught.get(name, 0)}/{tried}" for name, tried in self.tried.items()}
        return {
            "versions": self.versions,
            "refused": len(self.refused),
            "adapted": round(self.adapted, 2),
            "amplified": round(self.amplified, 2),
            **{name: faults.get(name, "") for name in FAULTS},
            "least fault, amplified": round(min(self.least.values(), default=0.0), 2),
        }


async def try_faults(engine: Candidate, tally: Tally, adapter: Adapter, before: Adapter) -> None:
    """Every fault once. An update without gradient publishes the same weights: the older version is no fault then."""
    for name, fault in FAULTS.items():
        if name == STALE and before.weights == adapter.weights:
            continue
        refusal = await engine.refusal(adapter, partial(applied, fault, before))
        seen = engine.levels.get("amplified", 0.0)
        tally.least[name] = min(seen, tally.least.get(name, seen))
        tally.tried[name] = tally.tried.get(name, 0) + 1
        tally.caught[name] = tally.caught.get(name, 0) + (refusal is not None)
        if refusal is None:
            print(f"    {engine.name} v{adapter.manifest.policy_version}: '{name}' was served", flush=True)


async def measure(
    trainee: Trainee, kinds: Sequence[str], versions: int, every: int, tallies: dict[Any, Tally], ends_at: float
) -> None:
    """every: faults are tried at each so many versions, from version 1 on. ends_at: no version is begun after it."""
    engines = [await candidate(kind, trainee) for kind in kinds]
    learner = f"{trainee.config.learner.dtype}, lr {trainee.config.learner.learning_rate:g}"
    before: Adapter | None = None
    for adapter in itertools.islice(trainee.versions(), versions + 1):
        if time.monotonic() > ends_at:
            break
        effect = mean_effect(adapter)
        size = max(edge for edge in EFFECTS if edge <= effect)
        version = adapter.manifest.policy_version
        for engine in engines:
            tally = tallies.setdefault((learner, engine.name, size), Tally())
            if before is not None and version % every == 1 % every:
                await try_faults(engine, tally, adapter, before)
            refusal = await engine.refusal(adapter)
            tally.versions += 1
            tally.adapted = max(tally.adapted, engine.levels["adapted_P"])
            tally.amplified = max(tally.amplified, engine.levels.get("amplified", 0.0))
            if refusal is not None:
                tally.refused.append(refusal)
                print(f"    {engine.name} v{version}: {refusal}", flush=True)
        before, louder = adapter, adapter.manifest.amplified
        print(
            f"{learner} v{version}: effect {effect:.3f}, amplified {louder.factor if louder else 1:g}",
            flush=True,
        )
    for engine in engines:
        engine.engine.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engines", nargs="+", default=["unmerged bfloat16", "merged bfloat16"])
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16"], help="of the learner")
    parser.add_argument("--learning-rates", nargs="+", type=float, default=[1e-4, 5e-4, 2e-3])
    parser.add_argument("--max-operand", nargs="+", type=int, default=[20, 99], help="tasks: sums up to this")
    parser.add_argument("--versions", type=int, default=50, help="per learner")
    parser.add_argument("--faults-every", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=600.0, help="no version is begun after these")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the table's JSON goes")
    args = parser.parse_args()
    torch.set_num_threads(1)
    ends_at = time.monotonic() + 60 * args.minutes
    model_path, tallies = resolve_model(PACKAGED_MODEL), dict[Any, Tally]()
    for dtype, rate, operand in itertools.product(args.dtypes, args.learning_rates, args.max_operand):
        trainee = Trainee(run_config(rate, dtype, operand), model_path)
        asyncio.run(measure(trainee, args.engines, args.versions, args.faults_every, tallies, ends_at))
        _show(tallies, args.results)  # after every learner: hours that are cut off leave what they have


def _show(tallies: dict[Any, Tally], directory: Path) -> None:
    rows = [
        {"learner": learner, "engine": engine, "effect from": size, **tally.row()}
        for (learner, engine, size), tally in sorted(tallies.items())
    ]
    total, refused = (
        sum(count) for count in zip(*((t.versions, len(t.refused)) for t in tallies.values()), strict=True)
    )
    title = f"{total} honest proofs, {refused} refused; faults caught of those tried"
    show("proof_power", title, rows, directory=directory)


if __name__ == "__main__":
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    main()
