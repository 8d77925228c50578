"""One view of a run, from its files alone; a second look takes what was appended, and what a resume cut is gone."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cluster.record.events.failures import Stopped
from cluster.record.events.training import AlarmRaised
from cluster.record.events.workers import Joined, Left
from cluster.record.incidents import append_event, write_incident
from cluster.record.recorder import Recorder
from cluster.record.run_dir import create_run, write_summary
from cluster.record.run_view import EvalCurve, RunReader, RunView, Series, WorkerNow, read_run
from contracts.reports import EvalReport
from tests.harness import make_config


def begun(tmp_path: Path) -> Path:
    return create_run(make_config(tmp_path), {})


def view(tmp_path: Path, **parts: Any) -> RunView:
    return RunView(tmp_path, make_config(tmp_path), {}, **{"metrics": [], "evals": []} | parts)


def test_a_second_look_has_what_was_written_since(tmp_path: Path) -> None:
    path = begun(tmp_path)
    reader, recorder = RunReader(path), Recorder(path, wall_clock=lambda: 5.0)
    first = reader.look()
    assert (first.metrics, first.events, first.incidents, first.status) == ([], [], [], None)
    recorder.metrics({"step": 1})
    recorder.event(Joined("w0", 2.0))
    second = reader.look()
    recorder.event(Stopped("no more disk"))
    recorder.status({"fleet": {}})
    third = reader.look()
    recorder.close()
    assert second.metrics == [{"step": 1}]
    assert second.events == [Joined("w0", 2.0, time_s=5.0)]
    assert third.events == [*second.events, Stopped("no more disk", time_s=5.0)]
    assert third.incidents == [Stopped("no more disk", time_s=5.0)]
    assert third.status is not None
    assert third == read_run(path)


def test_a_look_changes_no_earlier_view(tmp_path: Path) -> None:
    path = begun(tmp_path)
    reader = RunReader(path)
    append_event(path, Joined("w0", 2.0))
    first = reader.look()
    append_event(path, Left("w0"))
    assert len(reader.look().events) == 2
    assert len(first.events) == 1


def test_lines_that_a_resume_cut_and_wrote_again_stand_once(tmp_path: Path) -> None:
    path = begun(tmp_path)
    (path / "metrics.jsonl").write_bytes(b'{"step": 1}\n{"step": 2}\n{"st\0\0\0')
    reader = RunReader(path)
    assert [line["step"] for line in reader.look().metrics] == [1, 2]
    recorder = Recorder(path)
    recorder.metrics({"step": 3})
    recorder.close()
    assert [line["step"] for line in reader.look().metrics] == [1, 2, 3]
    (path / "metrics.jsonl").write_bytes(b'{"step": 1}\n')
    assert [line["step"] for line in reader.look().metrics] == [1]


def test_an_incident_that_is_being_written_is_there_at_the_next_look(tmp_path: Path) -> None:
    path = begun(tmp_path)
    reader = RunReader(path)
    file = write_incident(path, AlarmRaised("still", "entropy"))
    whole = file.read_text()
    file.write_text(whole[:9])
    assert reader.look().incidents == []
    file.write_text(whole)
    assert reader.look().incidents == [AlarmRaised("still", "entropy")]


def test_the_fleet_is_that_of_the_last_sign_of_life_and_none_once_the_run_has_ended(tmp_path: Path) -> None:
    path = begun(tmp_path)
    worker = {"state": "serving", "version": 3, "rollouts_in_hand": 8, "leases_in_hand": 1}
    fleet = {"w0": worker}
    (path / "status.json").write_text(json.dumps({"fleet": fleet}))
    assert read_run(path).fleet == [WorkerNow("w0", "serving", 3, 8, worker)]
    write_summary(path, {"exit_code": 0})
    assert read_run(path).fleet == []
    assert view(tmp_path).fleet == []


def test_a_series_has_the_updates_that_have_the_number(tmp_path: Path) -> None:
    metrics: list[dict[str, Any]] = [
        {"step": 1, "kl": 0.5},
        {"step": 2},
        {"step": 3, "kl": 0.25, "reward_parts": {"form": 1.0}},
    ]
    run = view(tmp_path, metrics=metrics)
    assert run.series("kl") == Series((1, 3), (0.5, 0.25))
    assert not run.series("entropy")
    assert run.parts("reward_parts") == {"form": Series((3,), (1.0,))}
    metrics[0]["reward_parts"] = {"right": 0.5}
    assert run.parts("reward_parts")["form"] == Series((1, 3), (0.0, 1.0))


def test_evaluations_of_one_kind_are_one_curve(tmp_path: Path) -> None:
    reports = [
        EvalReport(0, 0, 10, 0.1, 5.0, 0.0, 0, 8, None, None),
        EvalReport(0, 0, 10, 0.1, 5.0, 0.0, 0, 8, 0.5, 4),
        EvalReport(6, 6, 10, 0.3, 5.0, 0.0, 0, 8, None, None),
        EvalReport(6, 6, 10, 0.4, 9.0, 0.0, 0, 32, None, None),
    ]
    assert view(tmp_path, evals=[asdict(report) for report in reports]).eval_curves() == [
        EvalCurve(8, None, Series((0, 6), (0.1, 0.3))),
        EvalCurve(8, 4, Series((0,), (0.5,))),
        EvalCurve(32, None, Series((6,), (0.4,))),
    ]


def test_updates_without_a_line_of_metrics_are_counted_once_the_run_has_ended(tmp_path: Path) -> None:
    metrics = [{"step": 1}, {"step": 2}, {"step": 5}]
    assert view(tmp_path, metrics=metrics, summary={"exit_code": 0, "updates": 5}).updates_without_metrics == 2
    assert view(tmp_path, metrics=metrics).updates_without_metrics == 0
