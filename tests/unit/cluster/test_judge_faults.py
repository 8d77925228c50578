"""A fault of users' code is told once, with its own words, and is what a run that cannot go on says of itself."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.flow.failure_streak import FailureStreak
from cluster.record.judge_faults import MAX_TOLD, JudgeFaults
from cluster.record.recorder import Recorder
from cluster.record.sampled_counts import JudgedShares, SampledCounts, beyond_the_frames
from contracts.errors import RunStopped
from contracts.problem import Purpose
from contracts.rollout import FinishReason, RolloutGroup
from contracts.verdict import Invalid, Scored, Verdict
from tests.fakes import make_group, make_rollout


def group(*verdicts: Verdict, finish: FinishReason = FinishReason.STOP) -> RolloutGroup:
    return replace(
        make_group(), rollouts=tuple(make_rollout(str(i), verdict=v, finish=finish) for i, v in enumerate(verdicts))
    )


def told(path: Path, *groups: RolloutGroup) -> list[str]:
    path.mkdir(exist_ok=True)
    recorder = Recorder(path, [])
    faults = JudgeFaults(recorder)
    for one in groups:
        faults.look_at([one])
    recorder.close()

    lines = [json.loads(line) for line in (path / "events.jsonl").read_text().splitlines()]
    return [line["headline"] for line in lines if line["event"] == "could_not_be_judged"]


BUG = "task.scorer 'a.py:f' failed at /x/a.py:14 (ValueError): could not convert"
SCORER_FAILED = Scored(0.0, False, note="c failed at d): e", failed=("scorer",))
PART_FAILED = Scored(1.0, True, note="part failed at d): e", failed=("a.py:f",))
OTHER = "task.scorer 'a.py:f' failed at /x/a.py:15 (ValueError): could not convert"


def test_one_fault_is_told_once_whatever_the_answer(tmp_path: Path) -> None:
    headlines = told(tmp_path, *[group(Invalid(f"{BUG} {i}"), Scored(0.0, False)) for i in range(5)])
    [headline] = headlines
    assert headline.endswith(f"an answer could not be judged and is not trained on: {BUG} 0")


def test_two_faults_are_told_and_so_is_what_made_an_answer_wrong(tmp_path: Path) -> None:
    headlines = told(tmp_path, group(Invalid(BUG), Invalid(OTHER)), group(SCORER_FAILED, PART_FAILED))
    assert len(headlines) == 4
    assert headlines[2].endswith("the scorer failed over an answer, which counts as wrong: c failed at d): e")
    assert headlines[3].endswith(
        "a reward part failed over an answer and counts 0 there, right or wrong as the answer is: part failed at d): e"
    )


BOTH = Scored(0.0, False, failed=("scorer", "a.py:f"))
CAME = (
    group(SCORER_FAILED, PART_FAILED, BOTH, Scored(1.0, True)),
    group(Invalid(BUG)),
    replace(group(SCORER_FAILED), purpose=Purpose.EVAL),
    group(Invalid("timeout"), finish=FinishReason.TIMEOUT),
)


def counted(*groups: RolloutGroup) -> SampledCounts:
    counts = SampledCounts()
    for one in groups:
        counts.add(one)
    return counts


def test_what_failed_is_counted_by_name_as_a_share_of_the_rollouts() -> None:
    assert SampledCounts().shares() == JudgedShares()
    assert counted(*CAME).shares() == JudgedShares(5, {"a.py:f": 0.4, "scorer": 0.4}, 0.2)
    assert not counted(CAME[2]), "evaluations are counted elsewhere"


def test_frames_of_kept_groups_and_what_is_beyond_them_give_the_same_counts() -> None:
    """A frame holds tokens and verdicts of kept groups, and not what failed over them."""
    kept = (CAME[0],)
    from_log = beyond_the_frames(CAME, kept).stored().counts()
    for one in kept:
        bare = (replace(r, verdict=replace(r.verdict, failed=(), note="")) for r in one.rollouts)  # type: ignore[arg-type]
        from_log.add(replace(one, rollouts=tuple(bare)))
    assert from_log == counted(*CAME)
    assert not beyond_the_frames(kept[:0], kept[:0]), "no frame where nothing is to be told"


def test_an_evaluation_whose_answers_cannot_be_judged_is_told_by_the_evaluation_alone(tmp_path: Path) -> None:
    """There they count as wrong, which `evaluation_invalid` says: nothing of it was to be trained on."""
    evaluated = replace(group(Invalid(BUG), SCORER_FAILED), purpose=Purpose.EVAL)
    [headline] = told(tmp_path, evaluated)
    assert headline.endswith("the scorer failed over an answer, which counts as wrong: c failed at d): e")
    [_, trained] = told(tmp_path / "later", evaluated, group(Invalid(BUG)))
    assert trained.endswith(f"an answer could not be judged and is not trained on: {BUG}"), "it was not told before"


def test_what_an_engine_did_not_finish_is_no_fault_of_the_judge(tmp_path: Path) -> None:
    quiet = group(Invalid("timeout"), finish=FinishReason.TIMEOUT)
    assert told(tmp_path, quiet, group(Invalid(BUG))) == told(tmp_path / "again", group(Invalid(BUG)))


def test_faults_whose_words_always_differ_have_an_end(tmp_path: Path) -> None:
    assert len(told(tmp_path, *[group(Invalid(f"new {i}")) for i in range(2 * MAX_TOLD)])) == MAX_TOLD


def test_a_run_that_cannot_be_judged_stops_with_the_fault_as_its_reason() -> None:
    streak = FailureStreak(2)
    streak.untrainable(group(Invalid(BUG)))
    with pytest.raises(RunStopped, match=r"2 problems in a row could not be judged: task\.scorer .*a\.py:14"):
        streak.untrainable(group(Invalid(BUG)))


def test_a_run_whose_answers_come_too_late_still_names_the_deadline() -> None:
    streak = FailureStreak(1)
    with pytest.raises(RunStopped, match=r"ended by timeout\. Raise actors\.lease_deadline_s"):
        streak.untrainable(group(Invalid("timeout"), finish=FinishReason.TIMEOUT))
