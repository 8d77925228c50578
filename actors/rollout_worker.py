"""The rollout worker: lease -> version -> rollouts -> verdicts -> one RolloutGroup per lease.

Lives on one event loop. Verdicts are made on another thread, never on the loop. On an engine that batches
continuously every lease runs by itself; on any other, the leases of one call decode together, call after call.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from actors.adapter_cache import AdapterCache
from actors.config import LEAST_ADAPTERS_KEPT, ActorSettings
from actors.episodes import Episode, close_episodes, open_episodes, play
from actors.prover import Prover
from contracts.adapter import Adapter
from contracts.errors import AdapterMissingError, EngineError, ProofError, RefusalCause
from contracts.ports import Answer, AsyncEngine, GenerationRequest, Task, Tokenizer, Verifier
from contracts.problem import Lease, Sampling
from contracts.reports import WorkerReport
from contracts.rollout import FinishReason, Rollout, RolloutGroup, TurnOutcome
from contracts.verdict import Invalid, Verdict


@dataclass(frozen=True, slots=True, eq=False)
class Unverified:
    """A lease's finished rollouts before anybody judged them. started_s: wall clock at the first token."""

    lease: Lease
    episodes: tuple[Episode, ...]
    policy_version: int
    started_s: float


class RolloutWorker:
    """Samples groups with the newest version it has proven. clock: wall-clock seconds."""

    adapters_kept: ClassVar[int] = LEAST_ADAPTERS_KEPT
    """Newest versions that stay loaded, beside those that rollouts under way still need."""

    def __init__(
        self,
        worker_id: str,
        engine: AsyncEngine,
        tokenizer: Tokenizer,
        task: Task,
        verifier: Verifier,
        settings: ActorSettings,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._worker_id = worker_id
        self._engine, self._tokenizer = engine, tokenizer
        self._task, self._verifier = task, verifier
        self._settings, self._clock = settings, clock
        self._shelf = AdapterCache(self.adapters_kept)
        self._prover = Prover(worker_id, engine, settings)
        self._adopting, self._sampling, self._verifying = asyncio.Lock(), asyncio.Lock(), asyncio.Lock()
        self._groups = self._rollouts = self._tokens = self._adapter_loads = 0
        self._leases_in_hand = self._leases_to_judge = 0
        self._generate_s = self._verify_s = self._adapter_load_s = 0.0

    async def adopt(self, adapter: Adapter) -> None:
        """Load a version, prove it against the learner's probes, and drop what is surplus. Rollouts under way go on.

        Adopting a version twice is a no-op. Raises ValueError for another artifact under a known number or one that
        does not fit the model, ProofError when the engine's log-probs are not the learner's.
        """
        async with self._adopting:
            if not self._shelf.is_new(adapter.manifest):
                return
            started = self._clock()
            self._check_template(adapter)
            await self._prover.load_and_prove(adapter)
            await self._drop(self._shelf.put(adapter.manifest))
            self._adapter_loads += 1
            self._adapter_load_s += self._clock() - started

    async def sample(self, leases: Sequence[Lease]) -> list[RolloutGroup]:
        """One group per lease, in order."""
        self._leases_in_hand += len(leases)
        try:
            if self._engine.continuous:
                groups = await asyncio.gather(*(self._sample_one(lease) for lease in leases))
                return list(groups)
            async with self._sampling:
                unverified = await self.generate(leases)
            return await self.verify(unverified)
        finally:
            self._leases_in_hand -= len(leases)

    async def _sample_one(self, lease: Lease) -> RolloutGroup:
        [group] = await self.verify(await self.generate([lease]))
        return group

    async def generate(self, leases: Sequence[Lease]) -> list[Unverified]:
        """Sample every lease's rollouts; leases served by the same version decode together.

        Raises AdapterMissingError before anything is sampled, EngineError when the engine failed.
        """
        versions = [self._shelf.serving(lease) for lease in leases]
        self._shelf.pin(versions)
        started = self._clock()
        groups: list[tuple[Episode, ...]] = []
        try:
            groups = [tuple(open_episodes(lease, self._task, self._tokenizer)) for lease in leases]
            for (version, deadline_s), batch in _batches(leases, groups, versions).items():
                left_s = max(0.0, started + deadline_s - self._clock())
                await play(batch, self._engine, self._tokenizer, version, left_s, self._clock)
        finally:
            close_episodes(episode for group in groups for episode in group)
            await self._drop(self._shelf.unpin(versions))
            self._generate_s += self._clock() - started
        self._tokens += sum(episode.num_policy_tokens for group in groups for episode in group)
        return [Unverified(*found, started) for found in zip(leases, groups, versions, strict=True)]

    async def verify(self, unverified: Sequence[Unverified]) -> list[RolloutGroup]:
        """Judge every rollout that ended by itself or at the limit, in one call of the verifier."""
        started = self._clock()
        episodes = [episode for group in unverified for episode in group.episodes]
        asked = [episode for episode in episodes if _unjudgeable(episode) is None]
        self._leases_to_judge += len(unverified)
        try:
            async with self._verifying:
                answers = await asyncio.to_thread(self._verifier.verify, [_answer(episode) for episode in asked])
        finally:
            self._leases_to_judge -= len(unverified)
        if len(answers) != len(asked):
            raise ValueError(f"verifier returned {len(answers)} verdicts for {len(asked)} answers")
        verdicts: dict[str, Verdict] = {e.rollout_id: v for e, v in zip(asked, answers, strict=True)}
        finished = self._clock()
        groups = [self._group(group, verdicts, finished) for group in unverified]
        self._verify_s += finished - started
        self._groups += len(groups)
        self._rollouts += len(episodes)
        return groups

    async def health(self, deadline_s: float) -> float:
        """A real one-token generation with the newest version; returns its seconds. Raises EngineError."""
        if self._shelf.newest is None:
            raise AdapterMissingError(f"{self._worker_id} holds no adapter; adopt one first")
        started = self._clock()
        prompt_P = self._tokenizer.encode_chat([{"role": "user", "content": "1"}])
        request = GenerationRequest(prompt_P, (0,), Sampling(temperature=0.0, max_new_tokens=1))
        [[generation]] = await self._engine.generate([request], self._shelf.newest, deadline_s)
        if len(generation.tokens_T) != 1 or not generation.finish_reason.trainable:
            raise EngineError(
                f"{self._worker_id}: one token asked, {len(generation.tokens_T)} sampled within {deadline_s} s "
                f"({generation.finish_reason}); restart the worker"
            )
        return self._clock() - started

    def report(self) -> WorkerReport:
        return WorkerReport(
            worker_id=self._worker_id,
            policy_version=-1 if self._shelf.newest is None else self._shelf.newest,
            groups=self._groups,
            rollouts=self._rollouts,
            tokens=self._tokens,
            generate_s=self._generate_s,
            verify_s=self._verify_s,
            adapter_loads=self._adapter_loads,
            adapter_load_s=self._adapter_load_s,
            leases_in_hand=self._leases_in_hand,
            leases_to_judge=self._leases_to_judge,
        )

    def _check_template(self, adapter: Adapter) -> None:
        manifest, mine = adapter.manifest, self._tokenizer.fingerprint
        if manifest.template_hash and manifest.template_hash != mine:
            raise ProofError(
                f"{self._worker_id} refuses {manifest.name}: tokenizer or chat template is {mine[:12]} here and "
                f"{manifest.template_hash[:12]} at the learner; give both the same model folder",
                RefusalCause.IDENTITY,
            )

    async def _drop(self, versions: Sequence[int]) -> None:
        for version in versions:
            await self._engine.drop_adapter(version)

    def _group(self, group: Unverified, verdicts: dict[str, Verdict], finished_s: float) -> RolloutGroup:
        lease = group.lease
        return RolloutGroup(
            lease_id=lease.lease_id,
            problem_id=lease.problem.problem_id,
            question=lease.problem.question,
            prompt_P=group.episodes[0].prompt_P,
            rollouts=tuple(_rollout(e, verdicts.get(e.rollout_id), self._tokenizer) for e in group.episodes),
            policy_version=group.policy_version,
            purpose=lease.purpose,
            temperature=lease.sampling.temperature,
            worker_id=self._worker_id,
            attempt=lease.attempt,
            started_s=group.started_s,
            finished_s=finished_s,
        )


def _batches(
    leases: Sequence[Lease], groups: Sequence[tuple[Episode, ...]], versions: Sequence[int]
) -> dict[tuple[int, float], list[tuple[Episode, ...]]]:
    """What decodes together: groups of one version and one deadline."""
    batches: dict[tuple[int, float], list[tuple[Episode, ...]]] = {}
    for lease, group, version in zip(leases, groups, versions, strict=True):
        batches.setdefault((version, lease.deadline_s), []).append(group)
    return batches


def _unjudgeable(episode: Episode) -> Invalid | None:
    assert episode.finish_reason is not None, f"episode {episode.rollout_id} has not ended"
    if not episode.finish_reason.trainable:
        return Invalid(episode.finish_reason.value)
    if episode.outcomes[-1] is TurnOutcome.FAULT:
        return Invalid(episode.fault or "environment fault")
    return None


def _answer(episode: Episode) -> Answer:
    sampling = episode.lease.sampling
    return Answer(
        problem=episode.lease.problem,
        text=episode.final_text,
        num_tokens=sampling.max_new_tokens - episode.budget,
        max_new_tokens=sampling.max_new_tokens,
        truncated=episode.finish_reason is FinishReason.LENGTH,
    )


def _rollout(episode: Episode, verdict: Verdict | None, tokenizer: Tokenizer) -> Rollout:
    final = verdict if verdict is not None else _unjudgeable(episode)
    assert final is not None, f"rollout {episode.rollout_id} was neither judged nor refused"
    assert episode.finish_reason is not None
    tokens_T = episode.tokens
    return Rollout(
        rollout_id=episode.rollout_id,
        tokens_T=tokens_T,
        logprobs_T=episode.logprobs,
        policy_mask_T=episode.policy_mask,
        turn_ends_U=np.array(episode.turn_ends, np.int32),
        outcomes=tuple(episode.outcomes),
        finish_reason=episode.finish_reason,
        text=tokenizer.opening + tokenizer.decode(tokens_T),
        verdict=final,
        seed=episode.seed,
    )
