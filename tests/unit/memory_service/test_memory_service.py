"""What the service promises beside the formulas: all or nothing, idempotent, replayable, defined at the edges."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from contracts.errors import MemoryServiceError
from contracts.rollout import BonusStage, FinishReason, RolloutGroup
from memory_service.config import MemorySettings
from memory_service.encoder import HashEncoder
from memory_service.episodes import Episode, EpisodeStore
from memory_service.normaliser import SlidingMinMax
from memory_service.numpy_index import NumpyIndex
from memory_service.service import EpisodicMemory
from tests.fakes import make_group


class BreakingEncoder(HashEncoder):
    """Raises, or returns a zero vector, for texts that say so."""

    def __init__(self) -> None:
        super().__init__(16)
        self.calls = 0

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.calls += 1
        if "raise" in texts:
            raise RuntimeError("encoder broke")
        vectors = super().encode(texts)
        vectors[[i for i, text in enumerate(texts) if text == "zero"]] = 0.0
        return vectors


def memory(**values: object) -> EpisodicMemory:
    return EpisodicMemory(MemorySettings.model_validate(values), BreakingEncoder())


def with_texts(group: RolloutGroup, texts: Sequence[str]) -> RolloutGroup:
    import dataclasses

    rollouts = tuple(dataclasses.replace(r, text=t) for r, t in zip(group.rollouts, texts, strict=True))
    return dataclasses.replace(group, rollouts=rollouts)


def history(count: int = 12, seed: int = 0) -> list[RolloutGroup]:
    random = np.random.default_rng(seed)
    return [
        make_group(
            i, rewards=[float(random.random() < 0.4) for _ in range(4)], question=f"question {random.integers(6)}"
        )
        for i in range(count)
    ]


def test_first_group_meets_nobody_and_gets_no_bonus() -> None:
    [scored] = memory().score([make_group(0)])
    assert not scored.exploit_G.any()
    assert not scored.explore_G.any()
    assert scored.memory_version == 0
    assert scored.neighbours == ()


def test_group_is_read_before_it_is_written_and_the_next_one_meets_it() -> None:
    first, second = memory().score([make_group(0, question="a"), make_group(1, question="b")])
    assert (first.memory_version, second.memory_version) == (0, 1)
    assert {neighbour.rollout_id.split("/")[0] for neighbour in second.neighbours} == {"0"}


def test_everything_is_in_the_unit_interval_whatever_comes() -> None:
    service = memory(profile="paper", neighbours_k=50, window=3)
    for scored in service.score(history(30)):
        for values in (scored.exploit_G, scored.explore_G):
            assert ((values >= 0) & (values <= 1)).all()


def test_untrainable_rollouts_are_neither_scored_nor_remembered() -> None:
    service = memory()
    [scored] = service.score([make_group(0, finish=FinishReason.TIMEOUT)])
    assert not scored.bonus_G.any()
    assert service.report().episodes == 0
    assert service.report().memory_version == 1


@pytest.mark.parametrize(
    ("text", "message"), [("raise", "encoder broke"), ("zero", "rollout 1/0/1 a vector of length 0")]
)
def test_a_group_that_cannot_be_encoded_changes_nothing(text: str, message: str) -> None:
    service, reference = memory(), memory()
    before, after = make_group(0), make_group(2)
    service.score([before])
    with pytest.raises((RuntimeError, MemoryServiceError), match=message):
        service.score([with_texts(make_group(1), ["fine", text])])
    reference.score([before])
    assert service.report().episodes == reference.report().episodes
    assert np.array_equal(service.score([after])[0].bonus_G, reference.score([after])[0].bonus_G)


def test_after_a_refused_call_the_next_group_is_filed_under_the_key_it_would_have_had() -> None:
    """first_of_batch, two groups a batch: A opens one, B is its second. C was refused in between, and keys nothing."""
    wanted: dict[str, object] = {"profile": "released_code", "key_batch_groups": 2, "warmup": 0}
    service, reference = memory(**wanted), memory(**wanted)
    first, refused, second, third = (make_group(i, question=f"question {'ACBD'[i]}") for i in range(4))
    for one in (service, reference):
        one.score([first])
    with pytest.raises(MemoryServiceError):
        service.score([second, with_texts(refused, ["fine", "zero"])])
    for one in (service, reference):
        one.score([second])
        one.score([third])
    questions = [{query.question for query in one._terms["explore"].store} for one in (service, reference)]
    assert questions[0] == questions[1] == {"question A", "question D"}


def test_the_same_group_again_gets_the_same_answer_and_is_written_once() -> None:
    service = memory()
    groups = history(6)
    first = service.score(groups)
    episodes = service.report().episodes
    again = service.score([groups[3], groups[3]])
    for scored in again:
        assert np.array_equal(scored.bonus_G, first[3].bonus_G)
        assert scored.memory_version == 3
    report = service.report()
    assert (report.episodes, report.memory_version, report.duplicates) == (episodes, 6, 2)


def test_replaying_a_history_gives_the_same_rewards_one_call_or_many() -> None:
    together = memory().score(history())
    service = memory()
    alone = [service.score([group])[0] for group in history()]
    for left, right in zip(together, alone, strict=True):
        assert np.array_equal(left.bonus_G, right.bonus_G)
        assert left.memory_version == right.memory_version


def test_the_encoder_runs_once_per_call_and_questions_once_for_ever() -> None:
    encoder = BreakingEncoder()
    service = EpisodicMemory(MemorySettings(), encoder)
    service.score(history(5))
    service.score(history(5, seed=1))
    assert encoder.calls == 2


def test_failures_alone_and_memory_r_alone() -> None:
    groups = history(20)
    plain = memory(profile="paper", variant="memory_r").score(groups)
    assert all(not scored.explore_G.any() for scored in plain)
    assert any(scored.exploit_G.any() for scored in plain)


def test_mix_and_stage_decide_how_much_and_where() -> None:
    groups = history(20)
    capped = memory(profile="memr", mix="capped", cap_share=0.25, all_correct_groups="as_they_come").score(groups)
    assert max(float(scored.bonus_G.max()) for scored in capped) == 0.25
    later = memory(profile="memr", stage="after_normalisation").score(groups)
    assert {scored.bonus_stage for scored in later} == {BonusStage.AFTER_NORMALISATION}


def test_all_correct_groups_get_no_bonus_by_default() -> None:
    service = memory(profile="memr")
    service.score(history(10))
    [scored] = service.score([make_group(50, rewards=[1.0, 1.0, 1.0])])
    assert scored.exploit_G.any()
    assert not scored.bonus_G.any()


def test_reasoning_span_is_what_is_embedded() -> None:
    service, reference = memory(), memory(response_span="full")
    wrapped = with_texts(make_group(0), ["<think>\nsame\n</think><answer>1</answer>", "<think>\nsame\n</think> x"])
    later = with_texts(make_group(1), ["\nsame\n", "other"])
    for one in (service, reference):
        one.score([wrapped])
    exact, far = (one.score([later])[0].explore_G for one in (service, reference))
    assert exact[0] == 0.0, "the failure's reasoning is the same text: nothing new"
    assert service.query("question 0?", 1)[0].cosine == pytest.approx(1.0)
    assert far.shape == exact.shape


def test_other_tags_mark_the_reasoning_where_the_settings_name_them() -> None:
    """Under their own tags two texts score alike; under other tags the whole text is embedded, which differs."""

    def rewards(tag: str, **values: object) -> NDArray[np.float32]:
        texts = [f"<{tag}>\nsame\n</{tag}><answer>1</answer>", f"<{tag}>\nquite another\n</{tag}> x"]
        later = with_texts(make_group(1, rewards=[1.0, 0.0, 0.0]), ["\nsame\n", "other", "\nquite an"])
        service = memory(**values)
        service.score([with_texts(make_group(0), texts)])
        [scored] = service.score([later])
        return np.concatenate([scored.exploit_G, scored.explore_G])

    thought = rewards("think")
    np.testing.assert_array_equal(rewards("reasoning", reasoning_tags=["<reasoning>", "</reasoning>"]), thought)
    assert not np.allclose(rewards("reasoning"), thought, atol=1e-3)


@pytest.mark.parametrize(("decimals", "least", "most"), [(9, 0, 0), ("off", 400, 480)])
def test_the_published_rounding_noise_is_a_setting(decimals: object, least: int, most: int) -> None:
    """480 failed responses, each of which meets itself: nothing is new. Unrounded float32 without eps makes reward of the
    noise, as the published code did for 447 of 480."""
    encoder = HashEncoder(384)
    settings = MemorySettings.model_validate({"profile": "released_code", "warmup": 0, "raw_decimals": decimals})
    service = EpisodicMemory(settings, encoder)
    groups = [
        with_texts(make_group(i, rewards=[0.0] * 16), [f"failed answer {i} with {j * j} steps" for j in range(16)])
        for i in range(30)
    ]
    rewarded = sum(int((scored.explore_G > 0).sum()) for scored in service.score(groups))
    assert least <= rewarded <= most


@pytest.mark.parametrize(
    ("values", "kept"),
    [
        ({"profile": "released_code", "variant": "memory_r"}, 1000),
        ({"profile": "released_code"}, 100),
        ({"profile": "released_code", "variant": "memory_r", "max_responses_per_query": 7}, 7),
        ({"profile": "paper", "variant": "memory_r"}, 100),
    ],
)
def test_the_published_code_keeps_more_where_it_gives_exploit_alone(values: dict[str, object], kept: int) -> None:
    assert MemorySettings.model_validate(values).max_responses_per_query == kept


@pytest.mark.parametrize("tags", [["", "</think>"], ["<think>"], "<think>"])
def test_tags_that_find_nothing_are_refused(tags: object) -> None:
    with pytest.raises(ValueError, match="reasoning_tags"):
        MemorySettings.model_validate({"reasoning_tags": tags})


def test_query_gives_nearest_questions_of_both_memories() -> None:
    service = memory()
    service.score([make_group(0, question="how many apples"), make_group(1, question="zzzz")])
    found = service.query("how many apples", 3)
    assert [neighbour.question for neighbour in found][:2] == ["how many apples"] * 2
    assert {neighbour.correct for neighbour in found[:2]} == {True, False}


def test_own_group_follows_from_the_order() -> None:
    with pytest.raises(
        ValueError, match=r"own_group_as_neighbours = True: no setting any more, .*It follows from order"
    ):
        MemorySettings.model_validate({"own_group_as_neighbours": True})
    wrote_first = {"order": "write_then_read", "own_group_as_neighbours": True}
    assert MemorySettings.model_validate(wrote_first).own_group_as_neighbours


@pytest.mark.parametrize(
    ("values", "eps", "floor", "expected"),
    [
        ([0.0, 1.0, 0.5], 0.0, 0.0, [0.0, 1.0, 0.5]),
        ([2.0, 2.0], 1e-8, 0.0, [0.0, 0.0]),
        ([2.0, 2.0], 0.0, 0.0, None),
        ([1.0, 1.0005], 1e-8, 1e-3, [0.5, 0.5]),
    ],
)
def test_normaliser_by_hand(values: list[float], eps: float, floor: float, expected: list[float] | None) -> None:
    window = SlidingMinMax(10, eps, floor)
    raw = np.array(values)
    window.push(raw)
    scaled = window.scale(raw)
    assert (None if scaled is None else scaled.round(6).tolist()) == expected


def test_values_that_left_the_window_are_clipped() -> None:
    window = SlidingMinMax(2, 0.0, 0.0)
    raw = np.array([5.0, 0.0, 1.0])
    window.push(raw)
    scaled = window.scale(raw)
    assert scaled is not None
    assert scaled.tolist() == [1.0, 0.0, 1.0]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(1, 4)), max_size=40), st.integers(1, 4), st.integers(1, 5))
def test_eviction_equals_a_list_model(writes: list[tuple[int, int]], max_queries: int, max_responses: int) -> None:
    encoder = HashEncoder(16)
    store = EpisodeStore(NumpyIndex(16), max_queries, max_responses)
    model: list[tuple[str, list[str]]] = []
    for step, (name, size) in enumerate(writes):
        question = f"question {name}"
        vector = encoder.encode([question])[0]
        rollouts = [f"{step}/{i}" for i in range(size)]
        store.write(question, vector, [Episode(r, r, vector) for r in rollouts])
        entry = next((item for item in model if item[0] == question), None)
        if entry is None:
            model.append(entry := (question, []))
        entry[1].extend(rollouts)
        del entry[1][:-max_responses]
        del model[:-max_queries]
        assert [(q.question, [e.rollout_id for e in q.episodes]) for q in store] == model
        assert store.num_episodes == sum(len(rest) for _, rest in model)
        found = {query.question for query, _ in store.nearest(vector, 100)}
        assert found == {question for question, _ in model}
