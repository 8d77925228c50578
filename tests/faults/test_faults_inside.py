"""Faults from inside, all in one run: an engine that raises, hangs, cuts off and invents numbers, and a reward function
that does what users' code does. The run ends, its books close, and every fault is told by its own name."""

import json
from collections import Counter
from pathlib import Path

import pytest

from cluster.record.history import Kind
from cluster.record.run_log import read_log
from contracts.verdict import Invalid
from storage.arrow import groups_from_bytes
from tests.faults.bad_rewards import FAULTS, fault_of
from tests.faults.fault_run import FaultRun

UPDATES = 25
WANTED = {
    "raises": "RuntimeError",
    "hangs in C": "not judged within task.verifier_timeout_s = 3",
    "says NaN": "returned nan; it must return a finite number",
    "says a word": "returned 'good'; it must return a finite number",
    "dies": "verifier process",
    "eats memory": "MemoryError",
}
"""Fault -> part of its reason, told beside the answer or, where the answer counts as wrong by it, as an incident; the others
are judged anyway."""


@pytest.mark.long
@pytest.mark.timeout(400)
def test_faults_from_inside_are_named_and_cost_their_own_rollouts_alone(tmp_path: Path) -> None:
    run = FaultRun(
        tmp_path,
        "r",
        learner__num_updates=UPDATES,
        eval__problems=0,
        task__rewards='[{name = "correctness"}, {name = "tests.faults.bad_rewards:judge"}]',
        task__verifier_timeout_s=3,
        actors__lease_deadline_s=20,
        actors__scripted__faults="{raise = 0.02, abort = 0.02, timeout = 0.02, nan = 0.02}",
        learner__scripted__bad_update_probability=0.15,
    )
    try:
        run.wait_for_step(UPDATES, within_s=300)
        run.remember()
        assert run.finish(60) == 0, run.output[-3000:]
        assert run.survivors() == []
    finally:
        run.end()
    books = run.books()
    assert (books.lost, books.trained_twice, books.sampled_twice, books.steps_in_order) == (0, 0, 0, True)
    reasons: Counter[tuple[str, str]] = Counter()
    endings: Counter[str] = Counter()
    for frame in read_log(run.path / "log"):
        if frame.kind == Kind.SAMPLED:
            for scored in groups_from_bytes(frame.payload):
                for rollout in scored.group.rollouts:
                    endings[rollout.finish_reason] += 1
                    if rollout.finish_reason.trainable:
                        told = rollout.verdict.reason if isinstance(rollout.verdict, Invalid) else ""
                        reasons[fault_of(rollout.text) or "none", told] += 1
    headlines = [json.loads(path.read_text())["headline"] for path in (run.path / "incidents").glob("*.json")]
    for fault in FAULTS:
        found = [told for (name, told) in reasons if name == fault]
        assert found, f"{fault} never happened"
        of_answers = all(WANTED[fault] in told for told in found) if fault in WANTED else found == [""]
        assert of_answers or any(WANTED[fault] in headline for headline in headlines), (fault, found, headlines)
    assert {told for (name, told) in reasons if name == "none"} == {""}, "the faultless are judged"
    assert {"abort", "timeout", "error"} <= endings.keys(), "cut off, late, log-probs that are no numbers"
    events = Counter(json.loads(line)["event"] for line in (run.path / "events.jsonl").read_text().splitlines())
    assert events["update_skipped"] >= 1
    others = [headline for headline in headlines if "an answer" not in headline]
    assert all("the gradient is not finite" in headline for headline in others), others
