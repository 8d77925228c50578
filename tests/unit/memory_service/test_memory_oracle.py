"""The whole memory against an independent, slow re-telling of docs/algorithms.md: lists, loops, float64.

`Oracle` shares nothing with memory_service but its settings: no index, no batches, no arrays of episodes.
Rewards of whole histories agree to 1e-6, and wrong oracles must disagree, so that the comparison can fail.

Most histories use an encoder whose vectors have coordinates k/64 and length exactly 1. Every cosine is then
exact in float32 in any order of summation, so ties and zero ranges are facts and not rounding.
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from contracts.ports import TextEncoder, VectorIndex
from contracts.problem import Purpose
from contracts.rollout import BonusStage, FinishReason, Rollout, RolloutGroup, ScoredGroup, TurnOutcome
from contracts.verdict import Invalid, Scored, Verdict
from memory_service.config import MemorySettings
from memory_service.faiss_index import FaissFlatIndex
from memory_service.numpy_index import NumpyIndex
from memory_service.service import EpisodicMemory

TOLERANCE = 1e-6
RESOLUTION = 1e-12  # a non-zero range below this is float64 rounding: what it is stretched to is nobody's promise
DIMENSION = 8
Vector = NDArray[np.float64]
Store = list[tuple[str, list[Vector]]]  # one memory: (question, responses in writing order), oldest question first


@dataclass
class Expected:
    """What a group should be given; nan: below RESOLUTION, not compared. Named as in ScoredGroup."""

    exploit_G: list[float]
    explore_G: list[float]
    bonus_G: list[float]
    bonus_stage: BonusStage
    memory_version: int


class Oracle:
    """docs/algorithms.md, one response at a time."""

    def __init__(self, wanted: MemorySettings, encoder: TextEncoder, *, value_of_correct: float = 1.0) -> None:
        self.wanted = wanted
        self.value_of_correct = value_of_correct
        self.encoder = encoder
        self.success: Store = []
        self.failure: Store = []
        self.exploit_window: list[float] = []
        self.explore_window: list[float] = []
        self.questions: list[str] = []  # of every group scored, in order
        self.recorded: dict[str, Expected] = {}
        self.duplicates = 0
        self.written = 0

    def score(self, groups: Sequence[RolloutGroup]) -> list[Expected]:
        return [self.score_one(group) for group in groups]

    def score_one(self, group: RolloutGroup) -> Expected:
        if group.group_id in self.recorded:
            self.duplicates += 1
            return self.recorded[group.group_id]
        version = len(self.questions)
        self.questions.append(group.question)
        key = self.key()
        members = [(i, r) for i, r in enumerate(group.rollouts) if self.counts(r)]
        in_order = self.read_first if self.wanted.order == "read_then_write" else self.write_first
        exploit_M, explore_M = in_order(group, key, [r for _, r in members])
        expected = Expected([0.0] * len(group.rollouts), [0.0] * len(group.rollouts), [], self.stage(), version)
        for (i, _), exploit, explore in zip(members, exploit_M, explore_M, strict=True):
            expected.exploit_G[i], expected.explore_G[i] = exploit, explore
        expected.bonus_G = self.bonuses(group, expected)
        self.recorded[group.group_id] = expected
        return expected

    def counts(self, rollout: Rollout) -> bool:
        return rollout.trainable

    def key(self) -> str:
        n = len(self.questions) - 1
        if self.wanted.key == "first_of_batch":
            n -= n % self.wanted.key_batch_groups
        return self.questions[n]

    # --- the two orders -------------------------------------------------------------------------------------

    def read_first(self, group: RolloutGroup, key: str, rollouts: list[Rollout]) -> tuple[list[float], list[float]]:
        distances = [self.distance(r, key) for r in rollouts]
        novelties = [self.novelty(r, key, group.policy_version) for r in rollouts]
        for distance in distances:
            self.push_exploit(distance)
        for novelty in novelties:
            self.push_explore(novelty)
        exploit_M = [self.exploit(d) for d in distances]
        explore_M = [self.explore(n, group.policy_version) for n in novelties]
        for rollout in rollouts:
            self.write(self.success if rollout.correct else self.failure, key, rollout)
        return exploit_M, explore_M

    def write_first(self, group: RolloutGroup, key: str, rollouts: list[Rollout]) -> tuple[list[float], list[float]]:
        exploit_M, explore_M = [], []
        for rollout in rollouts:
            if rollout.correct:
                self.write(self.success, key, rollout)
            distance = self.distance(rollout, key)
            self.push_exploit(distance)
            exploit_M.append(self.exploit(distance))
        for rollout in rollouts:
            if not rollout.correct:
                self.write(self.failure, key, rollout)
            novelty = self.novelty(rollout, key, group.policy_version)
            self.push_explore(novelty)
            explore_M.append(self.explore(novelty, group.policy_version))
        return exploit_M, explore_M

    # --- reading --------------------------------------------------------------------------------------------

    def distance(self, rollout: Rollout, key: str) -> float | None:
        """|a - c| to the mean success; None where no success is known."""
        known = [vector for _, responses in self.nearest(self.success, key) for vector in responses]
        if not known:
            return None
        centre = sum(known[1:], start=known[0]) / len(known)
        return math.sqrt(sum(float(x) ** 2 for x in self.response(rollout) - centre))

    def novelty(self, rollout: Rollout, key: str, policy_version: int) -> float | None:
        """1 - the largest cosine to a failure; None where nothing is read."""
        known = [vector for _, responses in self.nearest(self.failure, key) for vector in responses]
        if not known or self.explore_is_off(policy_version):
            return None
        return 1.0 - max(cosine(vector, self.response(rollout)) for vector in known)

    def explore_is_off(self, policy_version: int) -> bool:
        by_steps = self.wanted.warmup_unit == "steps"
        passed = policy_version if by_steps else len(self.failure)
        return self.wanted.variant == "memory_r" or passed < self.wanted.warmup

    def nearest(self, store: Store, key: str) -> Store:
        asked = self.embed(key)
        # sorted() is stable: of two equal cosines the question inserted earlier comes first.
        return sorted(store, key=lambda entry: -cosine(self.embed(entry[0]), asked))[: self.wanted.neighbours_k]

    def response(self, rollout: Rollout) -> Vector:
        opening, closing = self.wanted.reasoning_tags
        _, found, rest = rollout.text.partition(opening)
        thought, ended, _ = rest.partition(closing)
        spanned = bool(found and ended) and self.wanted.response_span == "reasoning"
        return self.embed(thought if spanned else rollout.text)

    def embed(self, text: str) -> Vector:
        return np.asarray(self.encoder.encode([text])[0], np.float64)

    # --- writing --------------------------------------------------------------------------------------------

    def write(self, store: Store, key: str, rollout: Rollout) -> None:
        self.written += 1
        if key not in [question for question, _ in store]:
            store.append((key, []))
        responses = next(kept for question, kept in store if question == key)
        responses.append(self.response(rollout))
        del responses[: max(0, len(responses) - self.wanted.max_responses_per_query)]
        del store[: max(0, len(store) - self.wanted.max_queries)]

    # --- rewards --------------------------------------------------------------------------------------------

    def push_exploit(self, distance: float | None) -> None:
        if distance is not None:
            self.exploit_window.append(self.exploit_value(distance))
            del self.exploit_window[: -self.wanted.window]

    def push_explore(self, novelty: float | None) -> None:
        if novelty is not None:
            self.explore_window.append(novelty)
            del self.explore_window[: -self.wanted.window]

    def exploit_value(self, distance: float) -> float:
        return -distance if self.wanted.exploit_form == "negative_distance" else distance

    def exploit(self, distance: float | None) -> float:
        if distance is None:
            return 0.0
        inverted = self.wanted.exploit_form == "one_minus_scaled_distance"
        flat = clipped(1.0 - distance) if inverted else 0.0
        return self.scaled(self.exploit_value(distance), self.exploit_window, flat, inverted)

    def explore(self, novelty: float | None, policy_version: int) -> float:
        if self.explore_is_off(policy_version):
            return 0.0
        if novelty is None:
            return self.wanted.explore_when_empty
        return self.scaled(novelty, self.explore_window, 0.0, False)

    def scaled(self, value: float, window: list[float], flat: float, inverted: bool) -> float:
        spread = max(window) - min(window)
        floor, eps = self.wanted.normaliser_range_floor, self.wanted.normaliser_eps
        if (floor > 0 and abs(spread - floor) < RESOLUTION) or (eps == 0 and 0 < spread < RESOLUTION):
            return math.nan
        if floor > 0 and spread < floor:
            return 0.5
        if spread == 0 and eps == 0:
            return flat
        share = (value - min(window)) / (spread + eps)
        return clipped(1.0 - share if inverted else share)

    def bonuses(self, group: RolloutGroup, expected: Expected) -> list[float]:
        decay_steps = self.wanted.explore_decay_steps
        decay = 1.0 if decay_steps is None else decay_steps / (decay_steps + group.policy_version)
        judged = [r for r in group.rollouts if r.trainable]
        silent = self.wanted.all_correct_groups == "off" and all(r.correct for r in judged)
        steps = self.wanted.anneal_steps
        left = 1.0 if steps is None else clipped((steps - group.policy_version) / steps)
        bonus_G = []
        for exploit, explore in zip(expected.exploit_G, expected.explore_G, strict=True):
            bonus = self.wanted.exploit_weight * exploit + self.wanted.explore_weight * decay * explore
            if self.wanted.mix == "capped" and bonus > self.wanted.cap_share:
                bonus = self.wanted.cap_share
            if self.wanted.mix == "scaled":
                bonus *= self.share_per_weight()
            bonus_G.append(0.0 if silent else bonus * left)
        return bonus_G

    def share_per_weight(self) -> float:
        """Both terms at 1, without decay, give cap_share of a right answer; no weights give nothing."""
        both = self.wanted.exploit_weight + self.wanted.explore_weight
        return 0.0 if both == 0 else self.wanted.cap_share * self.value_of_correct / both

    def stage(self) -> BonusStage:
        return BonusStage(self.wanted.stage)


def cosine(a: Vector, b: Vector) -> float:
    """Divided by the lengths: float32 unit vectors are 1e-8 off, and without eps that would be stretched to [0, 1]."""
    return float(a @ b) / math.sqrt(float(a @ a) * float(b @ b))


def clipped(value: float) -> float:
    return min(1.0, max(0.0, value))


class RoundingOracle(Oracle):
    """For vectors whose cosines round: without eps a range of 0 here may be 1e-16 there, so neither is compared."""

    def scaled(self, value: float, window: list[float], flat: float, inverted: bool) -> float:
        if self.wanted.normaliser_eps == 0 and len(window) > 1 and max(window) - min(window) < RESOLUTION:
            return math.nan
        return super().scaled(value, window, flat, inverted)


# --- encoders ---------------------------------------------------------------------------------------------------


@cache
def lattice_vector(text: str) -> NDArray[np.float32]:
    """Integers k with sum k^2 = 64^2, divided by 64: a unit vector without rounding.

    "x=1" embeds exactly as "x" (ties); "x~3" embeds near "x" (two coordinates of x exchanged).
    """
    if "=" in text:
        return lattice_vector(text.split("=")[0])
    if "~" in text:
        near = lattice_vector(text.split("~")[0]).copy()
        order = np.argsort(near)
        i = int(hashlib.sha256(text.encode()).digest()[0]) % (DIMENSION - 1)
        near[[order[i], order[i + 1]]] = near[[order[i + 1], order[i]]]
        return near
    rng = seeded(text)
    while True:
        tries = rng.normal(size=(1024, DIMENSION))
        whole = np.rint(64 * tries / np.linalg.norm(tries, axis=1, keepdims=True))
        hits = whole[(whole**2).sum(axis=1) == 64**2]
        if len(hits):
            return np.asarray(hits[0] / 64, np.float32)


@cache
def rounded_vector(text: str) -> NDArray[np.float32]:
    """An ordinary float32 unit vector; "x~3" lies about 0.01 from "x". Its cosines carry rounding errors."""
    exact = seeded(text.split("~")[0]).normal(size=DIMENSION)
    if "~" in text:
        exact = exact + 0.01 * seeded(text).normal(size=DIMENSION)
    return np.asarray(exact / np.linalg.norm(exact), np.float32)


def seeded(text: str) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big"))


COMPASS = {"east": (1.0, 0.0), "north": (0.0, 1.0), "west": (-1.0, 0.0), "steep": (0.6, 0.8), "flat": (0.8, 0.6)}


def compass_vector(text: str) -> NDArray[np.float32]:
    """Plane vectors for arithmetic by hand."""
    return np.asarray(COMPASS[text], np.float32)


class FakeEncoder:
    """A TextEncoder from a function of one text."""

    def __init__(self, vector: Callable[[str], NDArray[np.float32]], dimension: int = DIMENSION) -> None:
        self.vector = vector
        self.dimension = dimension
        self.fingerprint = "fake"

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.stack([self.vector(text) for text in texts]) if texts else np.zeros((0, self.dimension), np.float32)


LATTICE = FakeEncoder(lattice_vector)
ROUNDED = FakeEncoder(rounded_vector)
HAND = FakeEncoder(compass_vector, dimension=2)


# --- histories --------------------------------------------------------------------------------------------------

FATES = ("right", "wrong", "aborted", "invalid", "silent")  # the last three are not trainable


def make_rollout(rollout_id: str, text: str, fate: str) -> Rollout:
    right = fate in ("right", "aborted")  # an aborted right answer must not become a success
    verdict: Verdict = Invalid("no verdict") if fate == "invalid" else Scored(float(right), right)
    return Rollout(
        rollout_id=rollout_id,
        tokens_T=np.asarray([7], np.int32),
        logprobs_T=np.asarray([-1.0], np.float32),
        policy_mask_T=np.asarray([fate != "silent"]),
        turn_ends_U=np.asarray([1], np.int32),
        outcomes=(TurnOutcome.DONE,),
        finish_reason=FinishReason.ABORT if fate == "aborted" else FinishReason.STOP,
        text=text,
        verdict=verdict,
        seed=0,
    )


def make_group(lease_id: int, question: str, answers: Sequence[tuple[str, str]], version: int = 0) -> RolloutGroup:
    """answers: (text, fate) of each rollout."""
    rollouts = (make_rollout(f"{lease_id}/0/{i}", text, fate) for i, (text, fate) in enumerate(answers))
    return RolloutGroup(
        lease_id=lease_id,
        problem_id=question,
        question=question,
        prompt_P=np.asarray([1], np.int32),
        rollouts=tuple(rollouts),
        policy_version=version,
        purpose=Purpose.TRAIN,
        temperature=1.0,
        worker_id="w0",
        attempt=0,
        started_s=0.0,
        finished_s=1.0,
    )


QUESTIONS = [f"q{i}" for i in range(5)] + ["q1=1", "q2=1", "q1~1", "q3~2"]
THOUGHTS = [f"r{i}" for i in range(6)] + ["r1~1", "r1~2", "r2~1", "two\nlines"]
FORMS = ["{}", "<think>{}</think> 5", "so <think>{}</think> <think>r0</think>", "<think>{} without an end"]
TEXTS = [form.format(thought) for form in FORMS for thought in THOUGHTS] + ["<think></think> 5"]
ANSWERS = st.lists(st.tuples(st.sampled_from(TEXTS), st.sampled_from(FATES)), min_size=1, max_size=5)
HISTORIES = st.lists(st.tuples(st.sampled_from(QUESTIONS), ANSWERS, st.integers(0, 4)), min_size=1, max_size=12)


def random_history(seed: int, num_groups: int = 30) -> list[RolloutGroup]:
    """Recurring questions, groups of 1 to 6, all fates, all-correct groups; some groups come twice."""
    rng = np.random.default_rng(seed)
    groups: list[RolloutGroup] = []
    for lease_id in range(num_groups):
        share_right = rng.choice([0.0, 0.3, 0.7, 1.0])
        answers = []
        for _ in range(rng.integers(1, 7)):
            fate = str(rng.choice(FATES[2:])) if rng.random() < 0.15 else FATES[int(rng.random() >= share_right)]
            answers.append((str(rng.choice(TEXTS)), fate))
        groups.append(make_group(lease_id, str(rng.choice(QUESTIONS)), answers, version=lease_id // 4))
        if rng.random() < 0.1:
            groups.append(groups[rng.integers(len(groups))])
    return groups


def in_calls(memory: Any, groups: Sequence[RolloutGroup], size: int) -> list[Any]:
    """The history, `size` groups per score() call."""
    return [scored for i in range(0, len(groups), size) for scored in memory.score(groups[i : i + size])]


def first_difference(scored: Sequence[ScoredGroup], expected: Sequence[Expected]) -> str | None:
    """None where the two agree."""
    assert len(scored) == len(expected)
    for n, (got, want) in enumerate(zip(scored, expected, strict=True)):
        if got.memory_version != want.memory_version or got.bonus_stage != want.bonus_stage:
            return f"group {n}: {got.memory_version} {got.bonus_stage}, not {want.memory_version} {want.bonus_stage}"
        for name in ("exploit_G", "explore_G", "bonus_G"):
            got_G, want_G = np.asarray(getattr(got, name), np.float64), np.asarray(getattr(want, name))
            if not np.all(np.isnan(want_G) | (np.abs(got_G - want_G) <= TOLERANCE)):
                return f"group {n} ({got.group.question}): {name} {got_G.tolist()}, not {want_G.tolist()}"
    return None


def disagreement(
    wanted: MemorySettings,
    groups: Sequence[RolloutGroup],
    oracle: Oracle,
    encoder: TextEncoder = LATTICE,
    size: int = 3,
    index: Callable[[int], VectorIndex] = FaissFlatIndex,
) -> str | None:
    memory = EpisodicMemory(wanted, encoder, value_of_correct=oracle.value_of_correct, index=index)
    return first_difference(in_calls(memory, groups, size), oracle.score(groups))


SMALL: dict[str, Any] = {"max_queries": 3, "max_responses_per_query": 4, "window": 7}
PROFILES: dict[str, dict[str, Any]] = {
    "paper": {"profile": "paper"},
    "paper_small": {"profile": "paper", "neighbours_k": 2, "warmup": 2, **SMALL},
    "paper_wide": {"profile": "paper", "neighbours_k": 20, "explore_when_empty": 1.0},
    "released_code": {"profile": "released_code"},
    "released_code_early": {"profile": "released_code", "warmup": 2, "neighbours_k": 3, "key_batch_groups": 3},
    "released_code_small": {"profile": "released_code", "warmup": 3, **SMALL},
    "memr": {"profile": "memr"},
    "memr_small": {"profile": "memr", "neighbours_k": 2, "explore_decay_steps": 3.0, **SMALL},
    "memr_narrow": {"profile": "memr", "window": 2, "max_queries": 1, "max_responses_per_query": 1},
    "memory_r": {"profile": "memr", "variant": "memory_r", "mix": "raw", "stage": "after_normalisation"},
    "capped": {"profile": "memr", "mix": "capped", "all_correct_groups": "as_they_come"},
    "annealed": {"profile": "memr", "anneal_steps": 4.5, "exploit_weight": 0.3, "explore_decay_steps": 3.0},
    "tagged": {"profile": "memr", "reasoning_tags": ("<reasoning>", "</reasoning>")},
}


# --- by hand ----------------------------------------------------------------------------------------------------

both = pytest.mark.parametrize("memory_class", [Oracle, EpisodicMemory])


def assert_rewards(scored: Any, exploit: Any, explore: Any, bonus: Any) -> None:
    np.testing.assert_allclose(scored.exploit_G, exploit, atol=TOLERANCE)
    np.testing.assert_allclose(scored.explore_G, explore, atol=TOLERANCE)
    np.testing.assert_allclose(scored.bonus_G, bonus, atol=TOLERANCE)


@both
def test_paper_rewards_of_three_groups_are_those_computed_by_hand(memory_class: type) -> None:
    first, second, third = memory_class(MemorySettings(profile="paper"), HAND).score(
        [
            make_group(0, "east", [("east", "right"), ("north", "wrong")]),
            make_group(1, "east", [("steep", "right"), ("east", "wrong")]),
            make_group(2, "east", [("west", "wrong"), ("steep", "right")]),
        ]
    )
    # Nothing is known: exploit 0, explore explore_when_empty = 0.
    assert_rewards(first, [0, 0], [0, 0], [0, 0])
    # Success {east}: distances sqrt(.8), 0. Failure {north}: novelties 1 - .8, 1 - 0.
    assert_rewards(second, [0, 1], [0, 1], [0, 2])
    # Success {east, steep}, c = (.8, .4): distances sqrt(1.8^2 + .4^2) = sqrt(3.4), sqrt(.2^2 + .4^2) = sqrt(.2).
    # The window holds -sqrt(.8), 0, -sqrt(3.4), -sqrt(.2): steep gets 1 - sqrt(.2 / 3.4) = 1 - 1/sqrt(17).
    # Failure {north, east}: novelties 1 - 0, 1 - .8; window .2, 1, 1, .2.
    steep = 1 - 1 / math.sqrt(17)
    assert_rewards(third, [0, steep], [1, 0], [1, steep])
    assert [first.memory_version, second.memory_version, third.memory_version] == [0, 1, 2]


@both
def test_released_code_rewards_of_one_group_are_those_computed_by_hand(memory_class: type) -> None:
    wanted = MemorySettings(profile="released_code", warmup=1)
    answers = [("east", "right"), ("north", "wrong"), ("steep", "right")]
    [scored] = memory_class(wanted, HAND).score([make_group(0, "flat", answers)])
    # east meets itself: d = 0, alone in the window, 1 - d = 1. north: d = sqrt(2), the largest: 0.
    # steep is written first, c = (.8, .4), d = sqrt(.2), window 0, sqrt(2), sqrt(.2): 1 - sqrt(.2 / 2).
    # Explore: east still in warm-up (no failed question); north meets itself: 0; steep 1 - .8, window 0, .2: 1.
    exploit = [1, 0, 1 - math.sqrt(0.1)]
    assert_rewards(scored, exploit, [0, 0, 1], [1, 0, 1 + exploit[2]])


@both
def test_memr_rewards_are_scaled_and_silent_for_all_correct_groups_and_flat_windows(memory_class: type) -> None:
    first, second, third, fourth = memory_class(MemorySettings(profile="memr"), HAND).score(
        [
            make_group(0, "east", [("east", "right"), ("north", "wrong")]),
            # One distance and one novelty: range 0 < floor, so 0.5 each; half of cap_share = 0.5.
            make_group(1, "east", [("east", "wrong")]),
            # All trainable ones correct: no bonus. Success {east}: d = 2, 0 on the window 0, 2, 0.
            # Failure {north, east}: west is 1 - 0 from north, east 1 - 1 from itself, on the window 1, 1, 0.
            make_group(2, "east", [("west", "right"), ("east", "right"), ("north", "aborted")]),
            # Success {east, west, east}, c = (1/3, 0), d = 2/3 on the window 0, 2, 0, 2/3. Novelty 0 on 1, 1, 0, 0.
            make_group(3, "east", [("east", "wrong")]),
        ]
    )
    assert_rewards(first, [0, 0], [0, 0], [0, 0])
    assert_rewards(second, [0.5], [0.5], [0.25])
    assert_rewards(third, [0, 1, 0], [1, 0, 0], [0, 0, 0])
    assert_rewards(fourth, [2 / 3], [0], [1 / 6])


@both
def test_the_oldest_response_and_the_oldest_question_go_first(memory_class: type) -> None:
    wanted = MemorySettings(profile="paper", variant="memory_r", max_queries=1, max_responses_per_query=1)
    _, second, _, fourth = memory_class(wanted, HAND).score(
        [
            make_group(0, "east", [("east", "right"), ("steep", "right")]),  # L = 1: east's list keeps steep
            make_group(1, "east", [("steep", "wrong"), ("east", "wrong")]),  # d = 0, sqrt(.8)
            make_group(2, "north", [("west", "right")]),  # d = sqrt(3.2) from steep; N = 1: question east goes
            make_group(3, "east", [("west", "wrong"), ("east", "wrong")]),  # d = 0, 2
        ]
    )
    assert_rewards(second, [1, 0], [0, 0], [1, 0])
    assert_rewards(fourth, [1, 0], [0, 0], [1, 0])


# --- against the oracle -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize("seed", range(8))
def test_service_agrees_with_the_oracle_over_random_histories(name: str, seed: int) -> None:
    wanted = MemorySettings(**PROFILES[name])
    assert disagreement(wanted, random_history(seed), Oracle(wanted, LATTICE)) is None


@pytest.mark.parametrize(("make_oracle", "encoder"), [(Oracle, LATTICE), (RoundingOracle, ROUNDED)])
@pytest.mark.parametrize("name", PROFILES)
def test_nine_in_ten_rewards_of_the_random_histories_are_compared(
    make_oracle: type[Oracle], encoder: TextEncoder, name: str
) -> None:
    oracle = make_oracle(MemorySettings(**PROFILES[name]), encoder)
    bonuses = [bonus for expected in oracle.score(random_history(0)) for bonus in expected.bonus_G]
    assert sum(math.isnan(bonus) for bonus in bonuses) <= 0.1 * len(bonuses)


@pytest.mark.parametrize("name", PROFILES)
def test_service_agrees_with_the_oracle_on_ordinary_float32_vectors(name: str) -> None:
    wanted = MemorySettings(**PROFILES[name])
    groups = [group for group in random_history(100) if "=" not in group.question]
    assert disagreement(wanted, groups, RoundingOracle(wanted, ROUNDED), ROUNDED) is None


@st.composite
def any_settings(draw: st.DrawFn) -> MemorySettings:
    rows: dict[str, Any] = draw(
        st.fixed_dictionaries(
            {"profile": st.sampled_from(["paper", "released_code", "memr"])},
            optional={
                "variant": st.sampled_from(["memory_r_plus", "memory_r"]),
                "response_span": st.sampled_from(["reasoning", "full"]),
                "max_queries": st.integers(1, 4),
                "max_responses_per_query": st.integers(1, 4),
                "neighbours_k": st.integers(1, 5),
                "explore_when_empty": st.sampled_from([0.0, 0.25, 1.0]),
                "window": st.integers(1, 8),
                "exploit_weight": st.sampled_from([0.0, 0.3, 2.0]),
                "explore_weight": st.sampled_from([0.0, 0.3, 2.0]),
                "explore_decay_steps": st.sampled_from([None, 1.0, 40.0]),
                "warmup": st.integers(0, 3),
                "warmup_unit": st.sampled_from(["steps", "distinct_failed_questions"]),
                "key": st.sampled_from(["per_problem", "first_of_batch"]),
                "key_batch_groups": st.integers(1, 3),
                "order": st.sampled_from(["read_then_write", "write_then_read"]),
                "exploit_form": st.sampled_from(["negative_distance", "one_minus_scaled_distance"]),
                "normaliser_eps": st.sampled_from([0.0, 1e-8, 0.1]),
                "normaliser_range_floor": st.sampled_from([0.0, 1e-3, 0.3]),
                "mix": st.sampled_from(["raw", "scaled", "capped", "raw_sum", "after_normalisation"]),
                "stage": st.sampled_from(["before_normalisation", "after_normalisation"]),
                "cap_share": st.sampled_from([0.2, 0.99]),
                "anneal_steps": st.sampled_from([None, 0.5, 3.0, 40.0]),
                "reasoning_tags": st.sampled_from([("<think>", "</think>"), ("<reasoning>", "</reasoning>")]),
                "all_correct_groups": st.sampled_from(["off", "as_they_come"]),
            },
        )
    )
    return MemorySettings(**rows)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(
    any_settings(),
    HISTORIES,
    st.integers(1, 4),
    st.sampled_from([0.5, 1.0, 2.0]),
    st.sampled_from([FaissFlatIndex, NumpyIndex]),
)
def test_service_agrees_with_the_oracle_for_any_settings(
    wanted: MemorySettings, history: Any, size: int, value: float, index: Callable[[int], VectorIndex]
) -> None:
    groups = [make_group(i, question, answers, version) for i, (question, answers, version) in enumerate(history)]
    oracle = Oracle(wanted, LATTICE, value_of_correct=value)
    assert disagreement(wanted, groups, oracle, size=size, index=index) is None


@pytest.mark.parametrize("name", PROFILES)
def test_groups_scored_together_get_what_they_get_alone(name: str) -> None:
    wanted, groups = MemorySettings(**PROFILES[name]), random_history(7)
    alone = in_calls(EpisodicMemory(wanted, LATTICE), groups, 1)
    together = EpisodicMemory(wanted, LATTICE).score(groups)
    for one, other in zip(alone, together, strict=True):
        assert one.memory_version == other.memory_version
        assert_rewards(one, other.exploit_G, other.explore_G, other.bonus_G)


@pytest.mark.parametrize("name", PROFILES)
def test_report_counts_what_the_oracle_holds(name: str) -> None:
    wanted, groups = MemorySettings(**PROFILES[name]), random_history(3)
    memory, oracle = EpisodicMemory(wanted, LATTICE), Oracle(wanted, LATTICE)
    memory.score(groups)
    oracle.score(groups)
    report = memory.report()
    successes, failures = (sum(len(kept) for _, kept in store) for store in (oracle.success, oracle.failure))
    assert (report.successes, report.failures, report.episodes) == (successes, failures, successes + failures)
    assert report.memory_version == report.groups_scored == len(oracle.questions)
    assert report.duplicates == oracle.duplicates > 0
    assert report.evicted == oracle.written - successes - failures


# --- the comparison can fail --------------------------------------------------------------------------------------

# Each is the service's settings, and a change that only the oracle gets.
WRONG_SETTINGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "one response too many": ({"max_responses_per_query": 3}, {"max_responses_per_query": 4}),
    "one question too many": ({"max_queries": 3}, {"max_queries": 4}),
    "one neighbour too few": ({"neighbours_k": 2}, {"neighbours_k": 1}),
    "one value too many in the window": ({"window": 5}, {"window": 6}),
    "a step of warm-up too many": ({"warmup": 2}, {"warmup": 3}),
    "warm-up in the wrong unit": ({"warmup": 3}, {"warmup_unit": "distinct_failed_questions"}),
    "no decay": ({"explore_decay_steps": 3.0}, {"explore_decay_steps": None}),
    "no cap": ({"profile": "memr", "mix": "capped"}, {"mix": "raw"}),
    "not scaled": ({"profile": "memr"}, {"mix": "raw"}),
    "cut instead of scaled": ({"profile": "memr"}, {"mix": "capped"}),
    "no annealing": ({"anneal_steps": 3.0}, {"anneal_steps": None}),
    "added at the other stage": ({}, {"stage": "after_normalisation"}),
    "other tags": ({"reasoning_tags": ("<reasoning>", "</reasoning>")}, {"reasoning_tags": ("<think>", "</think>")}),
    "no range floor": ({"profile": "memr", "window": 1}, {"normaliser_range_floor": 0.0}),
    "all-correct groups earn": ({"profile": "memr"}, {"all_correct_groups": "as_they_come"}),
    "whole text embedded": ({}, {"response_span": "full"}),
    "empty memory earns": ({}, {"explore_when_empty": 1.0}),
    "explore despite memory_r": ({"variant": "memory_r"}, {"variant": "memory_r_plus"}),
    "no eps": ({"normaliser_eps": 0.1}, {"normaliser_eps": 0.0}),
    "own group met": ({}, {"order": "write_then_read"}),
    "own question as key": ({"profile": "released_code", "warmup": 1}, {"key": "per_problem"}),
    "batch of three": ({"profile": "released_code", "warmup": 1}, {"key_batch_groups": 3}),
    "flat exploit not one minus distance": (
        {"profile": "released_code", "window": 1},
        {"exploit_form": "negative_distance"},
    ),
}


class LaterQuestionWinsTies(Oracle):
    def nearest(self, store: Store, key: str) -> Store:
        return super().nearest(store[::-1], key)


class NeverMeetsItsOwnQuestion(Oracle):
    def nearest(self, store: Store, key: str) -> Store:
        return super().nearest([entry for entry in store if entry[0] != key], key)


class TwinQuestionsShareOneList(Oracle):
    def write(self, store: Store, key: str, rollout: Rollout) -> None:
        super().write(store, key.split("=")[0], rollout)


class LeastRecentlyWrittenQuestionGoes(Oracle):
    def write(self, store: Store, key: str, rollout: Rollout) -> None:
        store.sort(key=lambda entry: entry[0] == key)
        super().write(store, key, rollout)


class EveryQuestionWeighsTheSame(Oracle):
    def distance(self, rollout: Rollout, key: str) -> float | None:
        means = [sum(kept[1:], start=kept[0]) / len(kept) for _, kept in self.nearest(self.success, key)]
        return float(np.linalg.norm(self.response(rollout) - sum(means) / len(means))) if means else None


class UntrainableRolloutsCount(Oracle):
    def counts(self, rollout: Rollout) -> bool:
        return True


class EmptyMemoryEntersTheWindow(Oracle):
    def push_explore(self, novelty: float | None) -> None:
        super().push_explore(0.0 if novelty is None else novelty)


class ValuesBeyondTheWindowAreNotClipped(Oracle):
    def scaled(self, value: float, window: list[float], flat: float, inverted: bool) -> float:
        share = (value - min(window)) / (max(window) - min(window) + self.wanted.normaliser_eps)
        return 1.0 - share if inverted else share


class RepeatedGroupsAreScoredAgain(Oracle):
    def score_one(self, group: RolloutGroup) -> Expected:
        self.recorded.clear()
        return super().score_one(group)


WRONG_ORACLES: dict[type[Oracle], dict[str, Any]] = {
    LaterQuestionWinsTies: {},
    NeverMeetsItsOwnQuestion: {},
    TwinQuestionsShareOneList: {},
    LeastRecentlyWrittenQuestionGoes: {"max_queries": 3},
    EveryQuestionWeighsTheSame: {"neighbours_k": 3},
    UntrainableRolloutsCount: {},
    EmptyMemoryEntersTheWindow: {},
    ValuesBeyondTheWindowAreNotClipped: {"window": 2},
    RepeatedGroupsAreScoredAgain: {},
}


def is_told_apart(wanted: MemorySettings, make_wrong: Callable[[], Oracle]) -> bool:
    return any(disagreement(wanted, random_history(seed), make_wrong()) for seed in range(4))


@pytest.mark.parametrize("fault", WRONG_SETTINGS)
def test_an_oracle_with_one_wrong_setting_is_told_apart(fault: str) -> None:
    rows, change = WRONG_SETTINGS[fault]
    wanted = MemorySettings(**{"profile": "paper", **rows})
    assert is_told_apart(wanted, lambda: Oracle(wanted.model_copy(update=change), LATTICE))


@pytest.mark.parametrize("wrong", WRONG_ORACLES, ids=lambda wrong: wrong.__name__)
def test_an_oracle_with_one_wrong_rule_is_told_apart(wrong: type[Oracle]) -> None:
    wanted = MemorySettings(**{"profile": "paper", **WRONG_ORACLES[wrong]})
    assert is_told_apart(wanted, lambda: wrong(wanted, LATTICE))
