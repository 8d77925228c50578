"""Proof before service, the moving part: what an engine is asked before it may serve a version.

    adapter -> a copy without effect (once per worker) and a copy with its effect amplified: load, score, drop
            -> the adapter itself: load, score, generate greedily -> judge (actors/proof.py) -> served, or ProofError

All three are the same bytes through the same loading code; only alpha differs. What the engine reports for the tokens that it
generates is compared with its own score of them: prefill, cache, batching and attention of decoding are proven with it.
"""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from actors.config import ActorSettings
from actors.proof import EngineScores, Generated, Judge, Known, OtherWeights, Scores
from contracts.adapter import Adapter, AdapterManifest, AmplifiedProbe, Probe
from contracts.errors import EngineError, ProofError, RefusalCause
from contracts.ports import AsyncEngine, GenerationRequest
from contracts.problem import Sampling

PROOFS_REMEMBERED = 16
"""Versions that a worker can tell from a new one."""

GENERATED_TOKENS = 8
"""Per prompt, at most."""

FIRST_COPY = 1_000_000_000
"""Numbers of passing copies: from here for amplified adapters, one below for the one without effect. vLLM's adapter ids
are 32 bits wide."""


class Prover:
    """Of one worker's engine. levels: of the last version that was judged (proof.Judge.levels)."""

    def __init__(self, worker_id: str, engine: AsyncEngine, settings: ActorSettings) -> None:
        self._worker_id, self._engine, self._settings = worker_id, engine, settings
        self._known: dict[int, Known] = {}
        self._base: Scores | None = None
        self.levels: dict[str, float] = {}

    async def load_and_prove(self, adapter: Adapter) -> None:
        """Afterwards the engine holds the version; after an error it does not. Raises ProofError, EngineError, ValueError."""
        version = adapter.manifest.policy_version
        self._check_bytes(adapter)
        if not adapter.manifest.probes:
            await self._engine.load_adapter(adapter)
            return
        before = await self._before(adapter)
        await self._engine.load_adapter(adapter)
        try:
            scores = replace(before, adapted=await self._scores(adapter.manifest.probes, version))
            generated = await self._generated(adapter.manifest.probes, version)
            self._judge(adapter.manifest, scores, generated)
        except BaseException:
            await self._engine.drop_adapter(version)
            raise

    async def _before(self, adapter: Adapter) -> EngineScores:
        """The base model and the amplified adapter, as this engine computes them."""
        probes = adapter.manifest.probes
        if self._base is None or [len(s) for s in self._base] != [len(probe.tokens_P) for probe in probes]:
            self._base = await self._scores_of_copy(adapter, probes, FIRST_COPY - 1, 0.0)
        louder, amplified = adapter.manifest.amplified, Scores()
        if louder is not None:
            number = FIRST_COPY + adapter.manifest.policy_version
            amplified = await self._scores_of_copy(adapter, louder.probes, number, louder.factor)
        return EngineScores(base=self._base, adapted=(), amplified=amplified)

    async def _scores_of_copy(
        self, adapter: Adapter, probes: Sequence[Probe | AmplifiedProbe], number: int, factor: float
    ) -> Scores:
        lora = adapter.manifest.lora
        manifest = replace(adapter.manifest, policy_version=number, lora=replace(lora, alpha=lora.alpha * factor))
        await self._engine.load_adapter(replace(adapter, manifest=manifest))
        try:
            return await self._scores(probes, number)
        finally:
            await self._engine.drop_adapter(number)

    async def _scores(self, probes: Sequence[Probe | AmplifiedProbe], version: int) -> Scores:
        return tuple(await asyncio.gather(*(self._engine.score(probe.tokens_P, version) for probe in probes)))

    async def _generated(self, probes: Sequence[Probe], version: int) -> list[Generated]:
        """Two rows of unequal prompts at once, the shortest probe and the longest; what was reported, what is scored."""
        sampling = Sampling(0.0, min(GENERATED_TOKENS, self._settings.max_new_tokens))
        prompts = sorted((probe.tokens_P for probe in probes), key=len)
        requests = [GenerationRequest(prompt_P, (0,), sampling) for prompt_P in (prompts[0], prompts[-1])]
        results = await self._engine.generate(requests, version, self._settings.lease_deadline_s)
        found = []
        for request, [generation] in zip(requests, results, strict=True):
            if not generation.finish_reason.trainable:
                raise EngineError(
                    f"{self._worker_id}: a greedy answer to a probe of {len(request.prompt_P)} tokens ended as "
                    f"'{generation.finish_reason}' with {len(generation.tokens_T)} tokens; the worker's log has the cause"
                )
            whole = np.concatenate([request.prompt_P, generation.tokens_T]).astype(np.int32)
            scored_T = (await self._engine.score(whole, version))[len(request.prompt_P) :]
            found.append(Generated(generation.logprobs_T, scored_T))
        return found

    def _judge(self, manifest: AdapterManifest, scores: EngineScores, generated: Sequence[Generated]) -> None:
        judge = Judge(
            manifest.dtype, self._settings.dtype, self._settings.rounds_small_updates, self._settings.probe_tolerance
        )
        self.levels = judge.levels(manifest.probes, scores, manifest.amplified)
        verdict = judge.verdict(manifest.probes, scores, generated, self._known, manifest.amplified)
        if verdict is not None:
            raise ProofError(
                f"{self._worker_id} refuses {manifest.name}: {verdict} ({manifest.dtype} learner, {self._settings.dtype} "
                "engine; docs/architecture.md, 'Proof before service')",
                RefusalCause.IDENTITY if isinstance(verdict, OtherWeights) else RefusalCause.ROUNDING,
            )
        self._known[manifest.policy_version] = Known(manifest.probes, scores.adapted)
        for old in sorted(self._known)[:-PROOFS_REMEMBERED]:
            del self._known[old]

    def _check_bytes(self, adapter: Adapter) -> None:
        """What travelled through an object store is what was published."""
        manifest = adapter.manifest
        found = hashlib.sha256(adapter.weights).hexdigest()
        if found != manifest.weights_hash:
            raise ProofError(
                f"{self._worker_id} refuses {manifest.name}: the bytes that arrived hash to {found[:12]}; they are fetched "
                "again, and if that repeats the object store or the network is damaged",
                RefusalCause.BYTES,
            )
