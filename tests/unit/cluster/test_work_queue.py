"""Leases go out in order, come back for another attempt, and evaluation takes what training leaves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.flow.evaluation import EvalPlan, eval_leases, evaluate_groups, pass_at_k
from cluster.flow.work_queue import WorkQueue
from contracts.problem import Lease, Problem, Purpose, Sampling
from tests.fakes import make_group


def lease(
    lease_id: int, purpose: Purpose = Purpose.TRAIN, rollouts: int = 2, version: int = 0, tokens: int = 8
) -> Lease:
    problem = Problem(str(lease_id), "?", "", ())
    return Lease(lease_id, problem, rollouts, Sampling(1.0, tokens), purpose, version, 0, 0, 60.0)


def ids(leases: list[Lease]) -> list[int]:
    return [item.lease_id for item in leases]


def queue_of(*leases: Lease) -> WorkQueue:
    queue = WorkQueue()
    for item in leases:
        queue.add(item)
    return queue


def test_a_call_carries_as_many_leases_as_one_batch_holds() -> None:
    queue = queue_of(*(lease(i) for i in range(3)))
    assert ids(queue.dispatch(5, rows=4)) == [0, 1]
    assert queue.versions_under_way() == [5, 5]
    assert ids(queue.dispatch(6, rows=4)) == [2]
    assert queue.dispatch(6, rows=4) == []
    assert queue.training_leases == 3


def test_training_goes_first_and_every_fourth_call_is_an_evaluations_while_both_wait() -> None:
    trains = [lease(i, rollouts=4) for i in range(7)]
    evals = [lease(-1 - i, Purpose.EVAL, rollouts=4, version=1) for i in range(3)]
    queue = queue_of(*trains, *evals)
    assert [ids(queue.dispatch(3, rows=4))[0] for _ in range(10)] == [0, 1, 2, -1, 3, 4, 5, -2, 6, -3]


def test_an_evaluation_takes_every_call_while_no_training_waits() -> None:
    evals = [lease(-1 - i, Purpose.EVAL, rollouts=4, version=1) for i in range(3)]
    queue = queue_of(*evals)
    assert ids(queue.dispatch(3, rows=4)) == [-1]
    assert ids(queue.dispatch(3, rows=4)) == [-2]
    queue.add(lease(0, rollouts=4))
    assert ids(queue.dispatch(3, rows=4)) == [0]


@pytest.mark.parametrize(
    ("eval_tokens", "training_tokens", "leases"),
    [
        (8, 8, 64),  # as long as training's: a whole batch
        (4, 8, 64),
        (16, 8, 32),  # twice as long: half a batch
        (32, 8, 16),
        (4096, 8, 16),  # no fewer than a quarter: decoding a few rows is hardly faster
        (4096, None, 64),  # no training is to come
    ],
)
def test_a_call_of_an_evaluation_holds_the_worker_no_longer_than_one_of_training(
    eval_tokens: int, training_tokens: int | None, leases: int
) -> None:
    evals = [lease(-1 - i, Purpose.EVAL, rollouts=1, tokens=eval_tokens) for i in range(100)]
    queue = queue_of(*evals)
    assert len(queue.dispatch(3, rows=64, training_tokens=training_tokens)) == leases


@given(st.integers(1, 200), st.integers(1, 100), st.integers(1, 1000), st.integers(1, 1000))
def test_an_evaluation_always_gets_on_and_never_has_more_rows_than_there_are(
    rows: int, samples: int, eval_tokens: int, training_tokens: int
) -> None:
    queue = queue_of(*(lease(-1 - i, Purpose.EVAL, samples, tokens=eval_tokens) for i in range(3)))
    given = queue.dispatch(3, rows=rows, training_tokens=training_tokens)
    assert given
    assert len(given) == 1 or len(given) * samples <= rows


def test_training_is_never_cut_smaller() -> None:
    queue = queue_of(*(lease(i, rollouts=8, tokens=16) for i in range(8)))
    assert len(queue.dispatch(3, rows=64, training_tokens=16)) == 8


def test_while_both_wait_an_evaluation_has_a_quarter_of_the_tokens_whatever_its_limit() -> None:
    """In the calls as they were, a limit four times as long took more than half."""
    queue = queue_of(*(lease(-1 - i, Purpose.EVAL, 1, tokens=32) for i in range(1000)))
    tokens = {Purpose.TRAIN: 0, Purpose.EVAL: 0}
    for call in range(40):
        for i in range(16):
            queue.add(lease(16 * call + i, rollouts=8))
        for item in queue.dispatch(3, rows=64, training_tokens=8):
            tokens[item.purpose] += item.num_rollouts * item.sampling.max_new_tokens
    assert tokens[Purpose.EVAL] / sum(tokens.values()) == 0.25


def test_evaluation_keeps_its_exact_version_and_does_not_count_as_under_way() -> None:
    queue = queue_of(lease(-1, Purpose.EVAL, version=1))
    assert queue.versions_needed() == {1}
    assert queue.dispatch(7, rows=4)[0].policy_version == 1
    assert queue.versions_under_way() == []
    assert queue.training_leases == 0


def test_leases_of_different_shape_do_not_share_a_call() -> None:
    queue = queue_of(lease(-1, Purpose.EVAL, 1, version=0), lease(-2, Purpose.EVAL, 1, version=1))
    assert ids(queue.dispatch(9, rows=4)) == [-1]
    assert ids(queue.dispatch(9, rows=4)) == [-2]


def test_a_returned_lease_is_first_in_line_with_its_next_attempt() -> None:
    queue = queue_of(*(lease(i, rollouts=4) for i in range(2)))
    failed = queue.dispatch(0, rows=4)[0]
    queue.returned(failed)
    again = queue.dispatch(0, rows=4)[0]
    assert (again.lease_id, again.attempt) == (0, 1)


def test_leases_of_a_worker_that_left_are_first_in_line_in_their_order_with_the_same_attempt() -> None:
    """What waits behind them is younger: it would be trained before them."""
    queue = queue_of(*(lease(i) for i in range(4)))
    for left in reversed(queue.dispatch(0, rows=4)):
        queue.put_back(left)
    again = queue.dispatch(0, rows=6)
    assert [(item.lease_id, item.attempt) for item in again] == [(0, 0), (1, 0), (2, 0)]


def test_pass_at_k_counts_the_chance_of_at_least_one_right_sample() -> None:
    assert pass_at_k(4, 0, 2) == 0.0
    assert pass_at_k(4, 4, 2) == 1.0
    assert pass_at_k(4, 1, 2) == 0.5  # 1 - C(3,2)/C(4,2) = 1 - 3/6


def test_a_problem_that_failed_counts_as_wrong_and_invalid() -> None:
    plan = EvalPlan(2, 2, 1, Sampling(0.0, 8))
    report = evaluate_groups(plan, [make_group(-1, rewards=[1.0]), make_group(-2, rewards=[0.0]), None, None])
    assert (report.n, report.accuracy, report.invalid, report.pass_at_k) == (4, 0.25, 2, None)


def test_eval_leases_have_negative_ids_and_one_version() -> None:
    plan = EvalPlan(3, 3, 1, Sampling(0.0, 8))
    leases = eval_leases(plan, [Problem("a", "?", "", ()), Problem("b", "?", "", ())], -5, 0, 9.0)
    assert ids(leases) == [-5, -6]
    assert {item.policy_version for item in leases} == {3}
