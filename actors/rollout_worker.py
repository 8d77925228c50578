"""The rollout worker: lease -> version -> rollouts -> verdicts -> one RolloutGroup per lease.

Two stages, so that a shell can verify one wave on another thread while the next wave samples:
`generate` uses the engine, `verify` uses the verifier, and they share nothing but counters of their own.
`adopt`, `generate` and `health` belong to one thread.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from actors.adapter_shelf import AdapterShelf
from actors.config import ActorSettings
from actors.episodes import Episode, open_episodes, play
from contracts.adapter import Adapter, Probe
from contracts.errors import AdapterMissingError, EngineError
from contracts.ports import Answer, Engine, GenerationRequest, Task, Tokenizer, Verifier
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
    """Samples groups with the newest adapter it holds. clock: wall-clock seconds."""

    def __init__(
        self,
        worker_id: str,
        engine: Engine,
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
        self._shelf = AdapterShelf(settings.adapters_kept)
        self._groups = self._rollouts = self._tokens = self._adapter_loads = 0
        self._generate_s = self._verify_s = self._adapter_load_s = 0.0

    def adopt(self, adapter: Adapter) -> None:
        """Load a version, prove it against the learner's probes, and drop what is surplus.

        Adopting a version twice is a no-op. Raises ValueError for another artifact under a known number or one
        that does not fit the model, EngineError when the engine's log-probs are not the learner's.
        """
        if not self._shelf.is_new(adapter.manifest):
            return
        started = self._clock()
        self._engine.load_adapter(adapter)
        try:
            self._prove(adapter)
        except EngineError:
            self._engine.drop_adapter(adapter.manifest.policy_version)
            raise
        self._drop(self._shelf.put(adapter.manifest))
        self._adapter_loads += 1
        self._adapter_load_s += self._clock() - started

    def sample(self, leases: Sequence[Lease]) -> list[RolloutGroup]:
        """One group per lease, in order."""
        return self.verify(self.generate(leases))

    def generate(self, leases: Sequence[Lease]) -> list[Unverified]:
        """Sample every lease's rollouts; leases served by the same version decode together.

        Raises AdapterMissingError before anything is sampled, EngineError when the engine failed.
        """
        versions = [self._shelf.serving(lease) for lease in leases]
        self._shelf.pin(versions)
        started = self._clock()
        try:
            groups = [tuple(open_episodes(lease, self._task, self._tokenizer)) for lease in leases]
            for (version, deadline_s), batch in _batches(leases, groups, versions).items():
                left_s = max(0.0, started + deadline_s - self._clock())
                play(batch, self._engine, self._tokenizer, version, left_s, self._clock)
        finally:
            self._drop(self._shelf.unpin(versions))
            self._generate_s += self._clock() - started
        self._tokens += sum(episode.num_tokens for group in groups for episode in group)
        return [Unverified(*found, started) for found in zip(leases, groups, versions, strict=True)]

    def verify(self, unverified: Sequence[Unverified]) -> list[RolloutGroup]:
        """Judge every rollout that ended by itself or at the limit, in one call of the verifier."""
        started = self._clock()
        episodes = [episode for group in unverified for episode in group.episodes]
        asked = [episode for episode in episodes if _unjudgeable(episode) is None]
        answers = self._verifier.verify([_answer(episode) for episode in asked])
        if len(answers) != len(asked):
            raise ValueError(f"verifier returned {len(answers)} verdicts for {len(asked)} answers")
        verdicts: dict[str, Verdict] = {e.rollout_id: v for e, v in zip(asked, answers, strict=True)}
        finished = self._clock()
        groups = [self._group(group, verdicts, finished) for group in unverified]
        self._verify_s += finished - started
        self._groups += len(groups)
        self._rollouts += len(episodes)
        return groups

    def health(self, deadline_s: float) -> float:
        """A real one-token generation with the newest version; returns its seconds. Raises EngineError."""
        if self._shelf.newest is None:
            raise AdapterMissingError(f"worker {self._worker_id} holds no adapter; adopt one first")
        started = self._clock()
        prompt_P = self._tokenizer.encode_chat([{"role": "user", "content": "1"}])
        request = GenerationRequest(prompt_P, (0,), Sampling(temperature=0.0, max_new_tokens=1))
        [[generation]] = self._engine.generate([request], self._shelf.newest, deadline_s)
        if len(generation.tokens_T) != 1 or not generation.finish_reason.trainable:
            raise EngineError(
                f"worker {self._worker_id}: one token asked, {len(generation.tokens_T)} sampled within {deadline_s} s "
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
        )

    def _prove(self, adapter: Adapter) -> None:
        version, tolerance = adapter.manifest.policy_version, self._settings.probe_tolerance
        for number, probe in enumerate(adapter.manifest.probes):
            difference = probe_difference(probe, self._engine.score(probe.tokens_P, version))
            if not difference <= tolerance:
                raise EngineError(
                    f"worker {self._worker_id}: adapter {adapter.manifest.name}, probe {number}: log-probs differ from "
                    f"the learner's by {difference:.4f} on average, limit {tolerance}. Give learner and actors the "
                    f"same model and dtype, or raise actors.probe_tolerance"
                )

    def _drop(self, versions: Sequence[int]) -> None:
        for version in versions:
            self._engine.drop_adapter(version)

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


def probe_difference(probe: Probe, logprobs_P: NDArray[np.float32]) -> float:
    """Mean |log-prob difference| over the probe's tokens, entry 0 left out; NaN stays NaN."""
    return float(np.abs(logprobs_P[1:] - probe.logprobs_P[1:]).mean())


def _unjudgeable(episode: Episode) -> Invalid | None:
    assert episode.finish_reason is not None, f"episode {episode.rollout_id} has not ended"
    if not episode.finish_reason.trainable:
        return Invalid(episode.finish_reason.value)
    return Invalid("environment fault") if episode.outcomes[-1] is TurnOutcome.FAULT else None


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
        text=tokenizer.decode(tokens_T),
        verdict=final,
        seed=episode.seed,
    )
