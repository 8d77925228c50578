"""Leases to groups, with an engine that records what it is asked and environments of one and of several turns."""

import asyncio
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from actors.config import ActorSettings
from actors.engines.torch_decoding.one_thread_engine import OneThreadEngine
from actors.prover import FIRST_COPY
from actors.rollout_worker import RolloutWorker, Unverified
from actors.seeds import rollout_seed, turn_seed
from contracts.adapter import Adapter, AdapterManifest, LoraShape, Probe, Reading
from contracts.errors import AdapterMissingError, EngineError, ProofError, RefusalCause
from contracts.ports import Answer, Environment, EnvironmentReply, Generation, GenerationRequest
from contracts.problem import Lease, Problem, Purpose, Sampling
from contracts.rollout import FinishReason, RolloutGroup, TurnOutcome
from contracts.verdict import Invalid, Scored, Verdict
from tests.tiny_policy import tiny_tokenizer

TOKENIZER = tiny_tokenizer()
Say = Callable[[GenerationRequest, int], tuple[str, FinishReason]]


def always(text: str, reason: FinishReason = FinishReason.STOP) -> Say:
    return lambda request, seed: (text, reason)


@dataclass
class RecordingEngine:
    """Says what `say` says (an end token follows STOP); log-prob of token i is -(i + 1) / 10."""

    say: Say = field(default_factory=lambda: always("4"))
    events: list[tuple[Any, ...]] = field(default_factory=list)
    requests: list[list[GenerationRequest]] = field(default_factory=list)
    score_shift: float = 0.0
    on_generate: Callable[[], None] = lambda: None

    def load_adapter(self, adapter: Adapter) -> None:
        self.events.append(("load", adapter.manifest.policy_version))

    def drop_adapter(self, policy_version: int) -> None:
        self.events.append(("drop", policy_version))

    def generate(
        self, requests: Sequence[GenerationRequest], policy_version: int, deadline_s: float
    ) -> list[list[Generation]]:
        self.events.append(("generate", policy_version, tuple(len(r.seeds) for r in requests), deadline_s))
        self.requests.append(list(requests))
        self.on_generate()
        return [[self._one(request, seed) for seed in request.seeds] for request in requests]

    def score(self, tokens_P: NDArray[np.int32], policy_version: int) -> NDArray[np.float32]:
        return np.where(np.arange(len(tokens_P)) == 0, 0, -1.0 + self.score_shift).astype(np.float32)

    def _one(self, request: GenerationRequest, seed: int) -> Generation:
        text, reason = self.say(request, seed)
        tokens = [*TOKENIZER.encode(text).tolist(), *([1] if reason is FinishReason.STOP else [])]
        tokens = tokens[: request.sampling.max_new_tokens]
        return Generation(np.array(tokens, np.int32), (-np.arange(1, len(tokens) + 1) / 10).astype(np.float32), reason)


@dataclass
class ListedEnvironment:
    """Gives its replies one after the other."""

    replies: list[EnvironmentReply]
    heard: list[str] = field(default_factory=list)

    def step(self, policy_text: str) -> EnvironmentReply:
        self.heard.append(policy_text)
        return self.replies[len(self.heard) - 1]


@dataclass
class ListedTask:
    replies: list[EnvironmentReply] = field(default_factory=lambda: [EnvironmentReply(TurnOutcome.DONE)])
    environments: list[ListedEnvironment] = field(default_factory=list)

    def train_problem(self, index: int) -> Problem:
        return Problem(f"p{index}", f"{index} + 2?", str(index + 2), ({"role": "user", "content": f"{index} + 2?"},))

    @property
    def num_train(self) -> int | None:
        return None

    def held_out(self, n: int) -> list[Problem]:
        return []

    def environment(self, problem: Problem) -> Environment:
        self.environments.append(ListedEnvironment(self.replies))
        return self.environments[-1]


@dataclass
class ExactVerifier:
    calls: list[list[Answer]] = field(default_factory=list)

    def verify(self, answers: Sequence[Answer]) -> list[Verdict]:
        self.calls.append(list(answers))
        return [Scored(float(a.text == a.problem.answer), a.text == a.problem.answer) for a in answers]

    def close(self) -> None: ...


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


def adapter(version: int, weights: bytes | None = None, probes: tuple[Probe, ...] = ()) -> Adapter:
    import hashlib

    content = weights or f"weights {version}".encode()
    digest = hashlib.sha256(content).hexdigest()
    manifest = AdapterManifest(version, digest, len(content), "m", LoraShape(1, 1.0, ()), "bfloat16", "", probes)
    return Adapter(manifest, content)


class SyncWorker:
    """The worker, one call at a time, each on an event loop of its own."""

    def __init__(self, worker: RolloutWorker) -> None:
        self._worker = worker
        self.report = worker.report

    def adopt(self, adapter: Adapter) -> None:
        asyncio.run(self._worker.adopt(adapter))

    def sample(self, leases: Sequence[Lease]) -> list[RolloutGroup]:
        return asyncio.run(self._worker.sample(leases))

    def generate(self, leases: Sequence[Lease]) -> list[Unverified]:
        return asyncio.run(self._worker.generate(leases))

    def verify(self, unverified: Sequence[Unverified]) -> list[RolloutGroup]:
        return asyncio.run(self._worker.verify(unverified))

    def health(self, deadline_s: float) -> float:
        return asyncio.run(self._worker.health(deadline_s))


def keeps(versions: int) -> type[RolloutWorker]:
    """A rollout worker that keeps so many versions loaded."""

    class Keeps(RolloutWorker):
        adapters_kept = versions

    return Keeps


def make_worker(
    engine: RecordingEngine, task: ListedTask | None = None, versions: Sequence[int] = (0,), kept: int = 3
) -> tuple[SyncWorker, ExactVerifier, Clock]:
    verifier, clock = ExactVerifier(), Clock()
    asynchronous = OneThreadEngine(engine)
    kind = keeps(kept)
    worker = SyncWorker(kind("w7", asynchronous, TOKENIZER, task or ListedTask(), verifier, ActorSettings(), clock))
    for version in versions:
        worker.adopt(adapter(version))
    return worker, verifier, clock


def lease(lease_id: int = 0, *, rollouts: int = 2, version: int = 0, purpose: Purpose = Purpose.TRAIN) -> Lease:
    return Lease(
        lease_id=lease_id,
        problem=ListedTask().train_problem(lease_id),
        num_rollouts=rollouts,
        sampling=Sampling(0.9, 20),
        purpose=purpose,
        policy_version=version,
        run_seed=5,
        attempt=1,
        deadline_s=30.0,
    )


def test_one_question_becomes_one_group_with_everything_the_contract_names() -> None:
    worker, _, _ = make_worker(RecordingEngine(always("4")))
    [group] = worker.sample([lease(2)])
    assert (group.lease_id, group.problem_id, group.attempt, group.worker_id) == (2, "p2", 1, "w7")
    assert (group.policy_version, group.temperature, group.purpose) == (0, 0.9, Purpose.TRAIN)
    assert TOKENIZER.decode(group.prompt_P) == "user: 2 + 2?\nassistant: "
    assert [r.rollout_id for r in group.rollouts] == ["2/1/0", "2/1/1"]
    rollout = group.rollouts[0]
    assert rollout.tokens_T.tolist() == [*TOKENIZER.encode("4").tolist(), 1]
    np.testing.assert_allclose(rollout.logprobs_T, [-0.1, -0.2])
    assert rollout.policy_mask_T.tolist() == [True, True]
    assert (rollout.turn_ends_U.tolist(), rollout.outcomes) == ([2], (TurnOutcome.DONE,))
    assert (rollout.text, rollout.finish_reason) == ("4", FinishReason.STOP)
    assert rollout.correct
    assert rollout.seed == rollout_seed(5, "p2", 2, 0, 1)


def test_leases_of_one_version_decode_in_one_call_and_are_verified_in_one_call() -> None:
    engine = RecordingEngine()
    worker, verifier, _ = make_worker(engine)
    groups = worker.sample([lease(0, rollouts=3), lease(1, rollouts=2)])
    assert engine.events[1:] == [("generate", 0, (3, 2), 30.0)]
    assert [len(call) for call in verifier.calls] == [5]
    assert [group.lease_id for group in groups] == [0, 1]


def test_training_uses_the_newest_version_and_evaluation_exactly_its_own() -> None:
    engine = RecordingEngine()
    worker, _, _ = make_worker(engine, versions=(0, 1, 2))
    leases = [lease(0, version=1), lease(-1, version=1, purpose=Purpose.EVAL), lease(3, version=2)]
    assert [group.policy_version for group in worker.sample(leases)] == [2, 1, 2]
    assert [event[1:3] for event in engine.events if event[0] == "generate"] == [(2, (2, 2)), (1, (2,))]


@pytest.mark.parametrize(
    ("purpose", "wanted", "message"),
    [
        (Purpose.TRAIN, 3, r"at least policy version 3, this worker holds \[0, 1, 2\]"),
        (Purpose.EVAL, 9, r"exactly policy version 9"),
    ],
)
def test_a_version_the_worker_lacks_is_refused_before_anything_is_sampled(
    purpose: Purpose, wanted: int, message: str
) -> None:
    engine = RecordingEngine()
    worker, _, _ = make_worker(engine, versions=(0, 1, 2))
    with pytest.raises(AdapterMissingError, match=message):
        worker.sample([lease(0), lease(1, version=wanted, purpose=purpose)])
    assert not any(event[0] == "generate" for event in engine.events)


def test_only_the_newest_versions_are_kept_and_nothing_is_loaded_twice() -> None:
    engine = RecordingEngine()
    worker, _, _ = make_worker(engine, versions=(0, 1, 1, 2, 3), kept=2)
    assert engine.events == [("load", 0), ("load", 1), ("load", 2), ("drop", 0), ("load", 3), ("drop", 1)]
    assert worker.report().adapter_loads == 4


def test_an_old_version_adopted_for_an_evaluation_stays_until_another_old_one_is_asked_for() -> None:
    engine = RecordingEngine()
    worker, _, _ = make_worker(engine, versions=(5, 6, 0), kept=2)
    for lease_id in (-1, -2):
        [group] = worker.sample([lease(lease_id, version=0, purpose=Purpose.EVAL)])
        assert group.policy_version == 0
    worker.adopt(adapter(7))
    assert ("drop", 0) not in engine.events, "evaluations come lease by lease"
    worker.adopt(adapter(1))
    assert ("drop", 0) in engine.events


class ContinuousEngine:
    """Calls overlap: each generation lasts until `let_go` is set."""

    continuous = True

    def __init__(self, engine: RecordingEngine) -> None:
        self._engine = engine
        self.started, self.let_go = asyncio.Event(), asyncio.Event()

    async def load_adapter(self, adapter: Adapter) -> None:
        self._engine.load_adapter(adapter)

    async def drop_adapter(self, policy_version: int) -> None:
        self._engine.drop_adapter(policy_version)

    async def generate(
        self, requests: Sequence[GenerationRequest], policy_version: int, deadline_s: float
    ) -> list[list[Generation]]:
        self.started.set()
        await self.let_go.wait()
        return self._engine.generate(requests, policy_version, deadline_s)

    async def score(self, tokens_P: NDArray[np.int32], policy_version: int) -> NDArray[np.float32]:
        return self._engine.score(tokens_P, policy_version)

    def close(self) -> None: ...


async def test_rollouts_under_way_finish_on_their_version_while_new_ones_use_the_newest() -> None:
    engine = RecordingEngine()
    continuous = ContinuousEngine(engine)
    worker = keeps(1)("w7", continuous, TOKENIZER, ListedTask(), ExactVerifier(), ActorSettings(engine="vllm"))
    await worker.adopt(adapter(0))
    first = asyncio.ensure_future(worker.sample([lease(0)]))
    await continuous.started.wait()
    await worker.adopt(adapter(1))
    assert engine.events == [("load", 0), ("load", 1)], "version 0 is pinned by the rollouts under way"
    second = asyncio.ensure_future(worker.sample([lease(1)]))
    await asyncio.sleep(0)
    continuous.let_go.set()
    groups = [*await first, *await second]
    assert [group.policy_version for group in groups] == [0, 1]
    assert ("drop", 0) in engine.events
    assert ("drop", 1) not in engine.events


def test_another_artifact_under_a_known_number_is_refused_even_after_the_first_was_dropped() -> None:
    worker, _, _ = make_worker(RecordingEngine(), versions=(0, 1, 2), kept=1)
    with pytest.raises(ValueError, match=r"policy version 0 is .* never reused"):
        worker.adopt(adapter(0, b"something else"))


def probe() -> Probe:
    """Two readings that differ by 1 nat: so much rounding that an engine may be 5 nats off."""
    exact_P, rounded_P = np.array([0, -1, -1], np.float32), np.array([0, -2, -2], np.float32)
    return Probe(np.array([3, 4, 5], np.int32), Reading(exact_P, exact_P), Reading(rounded_P, rounded_P))


def test_an_adapter_whose_probes_agree_is_served() -> None:
    worker, _, _ = make_worker(RecordingEngine(score_shift=0.01), versions=())
    worker.adopt(adapter(4, probes=(probe(),)))
    assert worker.report().policy_version == 4


@pytest.mark.parametrize("shift", [6.0, -6.0, float("nan")])
def test_an_adapter_whose_probes_disagree_is_unloaded_and_takes_no_work(shift: float) -> None:
    engine = RecordingEngine(score_shift=shift)
    worker, _, _ = make_worker(engine, versions=())
    with pytest.raises(ProofError, match=r"w7 refuses v000004-.*bfloat16 engine"):
        worker.adopt(adapter(4, probes=(probe(),)))
    assert [event[:2] for event in engine.events] == [
        ("load", FIRST_COPY - 1),
        ("drop", FIRST_COPY - 1),
        ("load", 4),
        ("generate", 4),
        ("drop", 4),
    ]
    with pytest.raises(AdapterMissingError):
        worker.sample([lease(0)])


def two_turns() -> ListedTask:
    return ListedTask([EnvironmentReply(TurnOutcome.CONTINUE, "why?"), EnvironmentReply(TurnOutcome.DONE)])


def test_two_turns_are_one_rollout_with_the_environments_words_masked_out() -> None:
    engine, task = (
        RecordingEngine(lambda request, seed: ("4" if len(request.prompt_P) > 30 else "hm", FinishReason.STOP)),
        two_turns(),
    )
    worker, verifier, _ = make_worker(engine, task)
    [group] = worker.sample([lease(2, rollouts=2)])
    reply = TOKENIZER.encode_reply("why?").tolist()
    first, last = [*TOKENIZER.encode("hm").tolist(), 1], [*TOKENIZER.encode("4").tolist(), 1]
    for rollout in group.rollouts:
        assert rollout.tokens_T.tolist() == first + reply + last
        assert rollout.policy_mask_T.tolist() == [True] * 3 + [False] * len(reply) + [True] * 2
        assert (rollout.logprobs_T[3 : 3 + len(reply)] == 0).all()
        assert rollout.turn_ends_U.tolist() == [3, 5 + len(reply)]
        assert rollout.outcomes == (TurnOutcome.CONTINUE, TurnOutcome.DONE)
        assert rollout.correct
    assert [environment.heard for environment in task.environments] == [["hm", "4"]] * 2
    assert [answer.text for answer in verifier.calls[0]] == ["4", "4"]
    assert [answer.num_tokens for answer in verifier.calls[0]] == [5, 5]


def test_a_later_turn_continues_the_exact_tokens_with_a_seed_of_its_own_and_the_rest_of_the_budget() -> None:
    engine = RecordingEngine(always("hm"))
    worker, _, _ = make_worker(engine, two_turns())
    [group] = worker.sample([lease(2, rollouts=2)])
    [opening], followups = engine.requests
    assert opening.seeds == tuple(rollout_seed(5, "p2", 2, i, 1) for i in range(2))
    assert [request.seeds for request in followups] == [(turn_seed(seed, 1),) for seed in opening.seeds]
    assert [request.sampling.max_new_tokens for request in followups] == [17, 17]
    so_far = np.concatenate([group.prompt_P, group.rollouts[0].tokens_T[:-3]])
    np.testing.assert_array_equal(followups[0].prompt_P, so_far)


def test_a_rollout_out_of_tokens_ends_as_length_even_if_the_environment_goes_on() -> None:
    worker, verifier, _ = make_worker(RecordingEngine(always("x" * 40, FinishReason.LENGTH)), two_turns())
    [group] = worker.sample([lease(2, rollouts=1)])
    [rollout] = group.rollouts
    assert (rollout.finish_reason, rollout.outcomes) == (FinishReason.LENGTH, (TurnOutcome.LIMIT,))
    assert verifier.calls[0][0].truncated
    assert len(rollout.tokens_T) == 20


@pytest.mark.parametrize("reason", [FinishReason.TIMEOUT, FinishReason.ABORT, FinishReason.ERROR])
def test_a_rollout_that_failed_is_data_and_the_rest_of_its_group_is_judged(reason: FinishReason) -> None:
    bad = rollout_seed(5, "p2", 2, 1, 1)
    engine = RecordingEngine(lambda request, seed: ("4", reason if seed == bad else FinishReason.STOP))
    worker, verifier, _ = make_worker(engine)
    [group] = worker.sample([lease(2, rollouts=3)])
    assert [r.trainable for r in group.rollouts] == [True, False, True]
    assert group.rollouts[1].verdict == Invalid(reason.value)
    assert group.rollouts[1].finish_reason is reason
    assert [len(call) for call in verifier.calls] == [2]


def test_log_probs_that_are_no_numbers_end_a_rollout_as_an_error_and_reach_nobody() -> None:
    class Broken(RecordingEngine):
        def _one(self, request: GenerationRequest, seed: int) -> Generation:
            generation = super()._one(request, seed)
            if seed == rollout_seed(5, "p2", 2, 1, 1):
                generation.logprobs_T[1] = np.nan
            return generation

    worker, verifier, _ = make_worker(Broken())
    [group] = worker.sample([lease(2, rollouts=3)])
    assert [r.finish_reason for r in group.rollouts] == [FinishReason.STOP, FinishReason.ERROR, FinishReason.STOP]
    assert [r.trainable for r in group.rollouts] == [True, False, True]
    assert [len(call) for call in verifier.calls] == [2]


def test_a_faulty_environment_makes_the_rollout_invalid_not_wrong() -> None:
    task = ListedTask([EnvironmentReply(TurnOutcome.FAULT)])
    worker, verifier, _ = make_worker(RecordingEngine(), task)
    [group] = worker.sample([lease(2, rollouts=1)])
    assert group.rollouts[0].verdict == Invalid("environment fault")
    assert verifier.calls == [[]]


def test_an_engine_failure_is_raised_and_the_version_is_released() -> None:
    engine = RecordingEngine()
    worker, _, _ = make_worker(engine, kept=1)

    def stumble() -> None:
        raise EngineError("out of memory")

    engine.on_generate = stumble
    with pytest.raises(EngineError, match="out of memory"):
        worker.sample([lease(0)])
    worker.adopt(adapter(1))
    assert engine.events[-1] == ("drop", 0)


def test_the_deadline_counts_from_receipt_over_all_turns() -> None:
    engine = RecordingEngine(always("hm"))
    worker, _, clock = make_worker(engine, two_turns())

    def later() -> None:
        clock.now += 12.0

    engine.on_generate = later
    worker.sample([lease(0), replace(lease(1), deadline_s=50.0)])
    assert [event[3] for event in engine.events if event[0] == "generate"] == [30.0, 18.0, 26.0, 14.0]


def test_verification_is_a_stage_of_its_own() -> None:
    worker, verifier, _ = make_worker(RecordingEngine())
    unverified = worker.generate([lease(2)])
    assert verifier.calls == []
    assert worker.report().groups == 0
    [group] = worker.verify(unverified)
    assert group.rollouts[0].correct
    assert worker.report().groups == 1


def test_the_report_counts_groups_rollouts_tokens_and_seconds() -> None:
    engine = RecordingEngine()
    worker, _, clock = make_worker(engine, versions=(0, 1))

    def later() -> None:
        clock.now += 2.0

    engine.on_generate = later
    worker.sample([lease(0, rollouts=3)])
    report = worker.report()
    assert (report.worker_id, report.policy_version, report.adapter_loads) == ("w7", 1, 2)
    assert (report.groups, report.rollouts, report.tokens, report.generate_s) == (1, 3, 6, 2.0)


def test_the_report_tells_what_is_in_hand_while_it_is() -> None:
    engine = RecordingEngine()
    worker, verifier, _ = make_worker(engine)
    seen: list[tuple[str, int, int]] = []

    def look(where: str) -> None:
        report = worker.report()
        seen.append((where, report.leases_in_hand, report.leases_to_judge))

    judge = verifier.verify

    def verify(answers: Sequence[Answer]) -> list[Verdict]:
        look("judging")
        return judge(answers)

    engine.on_generate = lambda: look("generating")
    verifier.verify = verify  # type: ignore[method-assign]
    worker.sample([lease(0), lease(1)])
    look("done")
    assert seen == [("generating", 2, 0), ("judging", 2, 2), ("done", 0, 0)]


def test_a_call_that_fails_leaves_nothing_in_hand() -> None:
    engine = RecordingEngine()
    worker, _, _ = make_worker(engine)

    def stumble() -> None:
        raise EngineError("no")

    engine.on_generate = stumble
    with pytest.raises(EngineError):
        worker.sample([lease(0)])
    assert worker.report().leases_in_hand == 0


def test_tokens_of_the_report_are_the_policys_without_an_environments_replies() -> None:
    worker, _, _ = make_worker(RecordingEngine(always("hm")), two_turns())
    [group] = worker.sample([lease(0, rollouts=2)])
    assert worker.report().tokens == sum(int(rollout.policy_mask_T.sum()) for rollout in group.rollouts) == 12
    assert sum(len(rollout.tokens_T) for rollout in group.rollouts) > 12


def test_health_is_a_real_one_token_generation() -> None:
    engine = RecordingEngine(always("4", FinishReason.LENGTH))
    worker, _, _ = make_worker(engine)
    assert worker.health(deadline_s=3.0) == 0.0
    assert engine.events[-1] == ("generate", 0, (1,), 3.0)
    assert engine.requests[-1][0].sampling.max_new_tokens == 1


def test_an_engine_that_generates_nothing_is_not_healthy() -> None:
    worker, _, _ = make_worker(RecordingEngine(always("", FinishReason.TIMEOUT)))
    with pytest.raises(EngineError, match=r"0 sampled within 3.0 s \(timeout\); restart the worker"):
        worker.health(deadline_s=3.0)


def test_a_worker_without_adapters_is_not_healthy() -> None:
    worker, _, _ = make_worker(RecordingEngine(), versions=())
    with pytest.raises(AdapterMissingError, match="adopt one first"):
        worker.health(deadline_s=3.0)
    assert worker.report().policy_version == -1


def test_another_chat_template_is_no_matter_of_rounding() -> None:
    worker, _, _ = make_worker(RecordingEngine(), versions=())
    made = adapter(4)
    foreign = Adapter(dataclasses.replace(made.manifest, template_hash="0" * 64), made.weights)
    with pytest.raises(ProofError, match="chat template") as refused:
        worker.adopt(foreign)
    assert refused.value.cause is RefusalCause.IDENTITY
