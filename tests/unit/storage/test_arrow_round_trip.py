"""What is written comes back: Arrow and pickle, any rollout, any number of turns."""

import dataclasses
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from contracts.errors import DataError
from contracts.problem import Purpose
from contracts.rollout import BonusStage, FinishReason, Neighbour, Rollout, RolloutGroup, ScoredGroup, TurnOutcome
from contracts.verdict import Invalid, Scored
from storage.arrow import SCORED_GROUP_SCHEMA, groups_from_table, groups_to_table, read_groups, write_groups
from tests.fakes import make_adapter, make_group, make_scored

floats = st.floats(-1e6, 1e6, allow_nan=False)
verdicts = st.one_of(
    st.builds(Scored, floats, st.booleans(), st.dictionaries(st.text(max_size=8), floats, max_size=3)),
    st.builds(Invalid, st.text(min_size=1, max_size=20)),
)


@st.composite
def rollouts(draw: st.DrawFn, rollout_id: str) -> Rollout:
    length = draw(st.integers(0, 12))
    outcomes = draw(st.lists(st.sampled_from(TurnOutcome), max_size=3))
    return Rollout(
        rollout_id=rollout_id,
        tokens_T=draw(hnp.arrays(np.int32, length)),
        logprobs_T=draw(hnp.arrays(np.float32, length, elements=st.floats(-100, 0, width=32))),
        policy_mask_T=draw(hnp.arrays(np.bool_, length)),
        turn_ends_U=draw(hnp.arrays(np.int32, len(outcomes))),
        outcomes=tuple(outcomes),
        finish_reason=draw(st.sampled_from(FinishReason)),
        text=draw(st.text(st.characters(codec="utf-8"), max_size=30)),
        verdict=draw(verdicts),
        seed=draw(st.integers(0, 2**63 - 1)),
    )


@st.composite
def scored_groups(draw: st.DrawFn, lease_id: int) -> ScoredGroup:
    size = draw(st.integers(1, 4))
    group = RolloutGroup(
        lease_id=lease_id,
        problem_id=draw(st.text(st.characters(codec="utf-8"), max_size=10)),
        question=draw(st.text(st.characters(codec="utf-8"), max_size=30)),
        prompt_P=draw(hnp.arrays(np.int32, st.integers(0, 5))),
        rollouts=tuple(draw(rollouts(f"{lease_id}/0/{i}")) for i in range(size)),
        policy_version=draw(st.integers(0, 1000)),
        purpose=draw(st.sampled_from(Purpose)),
        temperature=draw(st.floats(0, 2)),
        worker_id="w",
        attempt=draw(st.integers(0, 3)),
        started_s=draw(floats),
        finished_s=draw(floats),
    )
    scores = [draw(hnp.arrays(np.float32, size, elements=st.floats(0, 1, width=32))) for _ in range(3)]
    neighbours = draw(
        st.lists(
            st.builds(
                Neighbour,
                st.text(max_size=5),
                st.text(max_size=5),
                st.text(max_size=5),
                st.booleans(),
                st.floats(-1, 1),
            ),
            max_size=2,
        )
    )
    return ScoredGroup(
        group,
        scores[0],
        scores[1],
        scores[2],
        draw(st.sampled_from(BonusStage)),
        draw(st.integers(-1, 99)),
        draw(st.booleans()),
        tuple(neighbours),
    )


def assert_same(left: object, right: object) -> None:
    """Field by field, buffers with dtype; NaN never occurs."""
    if isinstance(left, np.ndarray):
        assert isinstance(right, np.ndarray)
        assert left.dtype == right.dtype
        assert np.array_equal(left, right)
    elif dataclasses.is_dataclass(left) and not isinstance(left, type):
        assert type(left) is type(right)
        for name in (f.name for f in dataclasses.fields(left)):
            assert_same(getattr(left, name), getattr(right, name))
    elif isinstance(left, tuple):
        assert isinstance(right, tuple)
        assert len(left) == len(right)
        for a, b in zip(left, right, strict=True):
            assert_same(a, b)
    else:
        assert left == right


@settings(max_examples=40, deadline=None)
@given(st.data(), st.integers(1, 3))
def test_groups_survive_arrow_and_pickle(data: st.DataObject, count: int) -> None:
    groups = [data.draw(scored_groups(i)) for i in range(count)]
    for back in (groups_from_table(groups_to_table(groups)), pickle.loads(pickle.dumps(groups))):  # noqa: S301
        assert len(back) == count
        for left, right in zip(groups, back, strict=True):
            assert_same(left, right)


def test_schema_has_a_column_for_every_field_of_a_rollout() -> None:
    named = {"tokens_T": "tokens", "logprobs_T": "logprobs", "policy_mask_T": "policy_mask", "turn_ends_U": "turn_ends"}
    fields = {named.get(name, name) for name in Rollout.__dataclass_fields__} - {"verdict"}
    assert fields <= set(SCORED_GROUP_SCHEMA.names)


def test_parquet_file_is_whole_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "step.parquet"
    write_groups([make_scored(make_group(0)), make_scored(make_group(1))], path)
    assert [scored.group.lease_id for scored in read_groups(path)] == [0, 1]
    assert [p.name for p in tmp_path.iterdir()] == ["step.parquet"]


def test_a_file_that_is_not_ours_is_refused_by_name(tmp_path: Path) -> None:
    rubbish = tmp_path / "rubbish.parquet"
    rubbish.write_bytes(b"not parquet")
    with pytest.raises(DataError, match=r"rubbish\.parquet"):
        read_groups(rubbish)
    other = tmp_path / "other.parquet"
    pq.write_table(pa.table({"x": [1]}), other)
    with pytest.raises(DataError, match="missing or different columns"):
        read_groups(other)


def test_rollout_with_buffers_of_different_length_is_refused() -> None:
    with pytest.raises(ValueError, match="3 tokens, 2 log-probs"):
        Rollout(
            "0/0/0",
            np.zeros(3, np.int32),
            np.zeros(2, np.float32),
            np.ones(3, np.bool_),
            np.array([3], np.int32),
            (TurnOutcome.DONE,),
            FinishReason.STOP,
            "",
            Scored(0.0, False),
            0,
        )


def test_scored_group_refuses_numbers_that_are_not_finite() -> None:
    group = make_group(0)
    bad = np.array([0.0, np.nan], np.float32)
    with pytest.raises(ValueError, match="bonus_G is not finite"):
        ScoredGroup(group, np.zeros(2, np.float32), np.zeros(2, np.float32), bad, BonusStage.BEFORE_NORMALISATION, 0)


@pytest.mark.parametrize(
    ("finish", "verdict", "trainable"),
    [
        (FinishReason.STOP, Scored(0.0, False), True),
        (FinishReason.LENGTH, Scored(0.0, False), True),
        (FinishReason.TIMEOUT, Scored(0.0, False), False),
        (FinishReason.STOP, Invalid("verifier hung"), False),
    ],
)
def test_only_judged_stop_and_length_may_train(
    finish: FinishReason, verdict: Scored | Invalid, trainable: bool
) -> None:
    from tests.fakes import make_rollout

    assert make_rollout(verdict=verdict, finish=finish).trainable is trainable


def test_an_adapters_weights_travel_as_a_buffer_and_are_not_copied_on_arrival() -> None:
    adapter = make_adapter(3, b"weights" * 100)
    buffers: list[pickle.PickleBuffer] = []
    message = pickle.dumps(adapter, protocol=5, buffer_callback=buffers.append)
    assert len(message) < 1000, "the weights are beside the message, not in it"
    shared = memoryview(bytes(buffers[0].raw()))
    arrived = pickle.loads(message, buffers=[shared])  # noqa: S301
    assert bytes(arrived.weights) == bytes(adapter.weights)
    assert arrived.weights.obj is shared.obj, "the bytes of the store themselves"
    assert arrived.manifest.weights_hash == adapter.manifest.weights_hash
    in_band = pickle.loads(pickle.dumps(adapter))  # noqa: S301
    assert in_band.weights == adapter.weights
