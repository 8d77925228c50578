"""JSONL is the truth, watchers may fail, and a run can be read whatever became of it."""

import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cluster.commands.cli import resume, train
from cluster.commands.report import _transcripts, write_report
from cluster.commands.summary import before_after, recent_bottleneck, state_of
from cluster.config.run_config import RunConfig
from cluster.record.events.event import Event
from cluster.record.events.failures import EndedByForce, Stopped
from cluster.record.events.registry import from_line
from cluster.record.recorder import Recorder
from cluster.record.run_dir import FOLDERS, claim_run, create_run, write_summary
from cluster.record.run_view import read_run
from cluster.watch.console import LiveConsole, PlainConsole, eval_text, event_text, spark
from contracts.errors import ConfigError, DataError
from contracts.reports import EvalReport
from contracts.rollout import ScoredGroup
from tests.fakes import make_group, make_scored
from tests.harness import Run, make_config

SCRIPTED = Path(__file__).resolve().parents[3] / "configs" / "scripted.toml"


class Failing:
    def watch(self, kind: str, line: dict[str, Any]) -> None:
        raise OSError("no space for curves")

    def show_event(self, event: Event) -> None: ...

    def show_groups(self, groups: Sequence[ScoredGroup]) -> None: ...

    def close(self) -> None: ...


def evaluation(step: int, accuracy: float, limit: int = 8, k: int | None = None) -> EvalReport:
    return EvalReport(step, step, 10, accuracy, 5.0, 0.0, 0, limit, accuracy if k else None, k)


def test_a_watcher_that_fails_is_dropped_with_an_event_and_the_lines_are_there(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, [Failing()])
    recorder.metrics({"step": 1})
    recorder.metrics({"step": 2})
    recorder.close()
    assert (tmp_path / "metrics.jsonl").read_text().splitlines() == ['{"step": 1}', '{"step": 2}']
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events] == ["watcher_failed"]
    assert "no space for curves" in events[0]["error"]


def test_a_run_directory_is_never_used_twice(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    create_run(config, {})
    with pytest.raises(ConfigError, match=r"already holds a run.*--set run\.name"):
        create_run(config, {})


@pytest.mark.parametrize("left", ["log/000000.log", "checkpoints/step-000003/manifest.json", "summary.json"])
def test_a_run_without_its_manifest_is_not_mixed_with_a_new_one(tmp_path: Path, left: str) -> None:
    config = make_config(tmp_path)
    file = config.run_path / left
    file.parent.mkdir(parents=True)
    file.write_text("of the first run")
    with pytest.raises(ConfigError, match=rf"no manifest.json.*{left.split('/')[0]}.*move the folder away"):
        create_run(config, {})
    with pytest.raises(ConfigError, match="no manifest.json"):
        train(SCRIPTED, [f"run.directory={config.run.directory}", f"run.name={config.run.name}"])
    assert file.read_text() == "of the first run"
    assert not (config.run_path / "config.toml").exists()


def test_what_a_start_leaves_that_was_ended_before_its_manifest_is_no_run(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    for folder in (*FOLDERS, "incidents"):
        (config.run_path / folder).mkdir(parents=True)
    for empty in ("run.lock", "config.toml", "log/000000.log"):
        (config.run_path / empty).touch()
    (config.run_path / "config.toml").write_text("[run]")
    (config.run_path / "incidents" / "0001-run_died.json").write_text("{}")
    assert read_run(create_run(config, {})).config == config


@pytest.mark.parametrize("damage", ["", "{", "[]"])
def test_a_damaged_manifest_is_named_with_what_to_do(tmp_path: Path, damage: str) -> None:
    path = create_run(make_config(tmp_path), {})
    (path / "manifest.json").write_text(damage)
    with pytest.raises(DataError, match=r"manifest\.json .*JSON.*; restore it from a copy"):
        read_run(path)


async def test_a_report_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    _, path = await finished(tmp_path)
    (path / "report.html").mkdir()
    with pytest.raises(DataError, match=r"cannot write .*report\.html"):
        write_report(path)


def test_a_folder_that_is_no_run_is_told_with_the_runs_beside_it(tmp_path: Path) -> None:
    create_run(make_config(tmp_path), {})
    with pytest.raises(ConfigError, match=r"not a run.*Runs beside it: .*r$"):
        read_run(tmp_path / "other")


async def finished(tmp_path: Path, **sections: Any) -> tuple[RunConfig, Path]:
    config = make_config(tmp_path, updates=2, **sections)
    create_run(config, {})
    await Run(config).run()
    return config, config.run_path


async def test_a_live_runs_half_written_line_is_left_out(tmp_path: Path) -> None:
    _, path = await finished(tmp_path)
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "unfin')
    assert [line["step"] for line in read_run(path).metrics] == [1, 2]


async def test_status_tells_running_from_dead_from_failed(tmp_path: Path) -> None:
    _, path = await finished(tmp_path)
    run = read_run(path)
    assert run.status is not None
    claim_run(path, supervisor=None)
    assert state_of(run, run.status["time_s"] + 1).startswith("running")
    assert "last sign of life 10 min ago at update 2" in state_of(run, run.status["time_s"] + 600)
    recorder = Recorder(path)
    recorder.event(Stopped("no more disk"))
    recorder.close()
    assert state_of(read_run(path)) == "failed: no more disk"
    recorder = Recorder(path)
    recorder.event(EndedByForce("asked twice. No checkpoint was written now"))
    recorder.close()
    assert state_of(read_run(path)) == "asked twice. No checkpoint was written now; `memr resume` goes on"


def test_status_tells_a_run_that_loads_from_one_that_stopped(tmp_path: Path) -> None:
    """Its summary goes only when it has taken the run up."""
    path = create_run(make_config(tmp_path), {})
    claim_run(path, supervisor=None)
    write_summary(path, {"exit_code": 130, "updates": 1, "wall_s": 60.0})
    os.utime(path / "process.json", ns=(1, 1))
    assert state_of(read_run(path)).startswith("stopped on request")
    claim_run(path, supervisor=None)
    os.utime(path / "summary.json", ns=(1, 1))
    assert state_of(read_run(path)).startswith("being resumed; before that stopped on request")


async def test_status_tells_a_supervisor_that_died_from_a_request(tmp_path: Path) -> None:
    _, path = await finished(tmp_path)
    summary = {"exit_code": 130, "updates": 2, "wall_s": 60.0}
    write_summary(path, summary | {"ended_by": ""})
    assert state_of(read_run(path)) == "stopped on request; `memr resume` goes on, 2 updates, 1.0 min"
    write_summary(path, summary | {"ended_by": "supervisor_died"})
    assert state_of(read_run(path)).startswith(
        "ended because its supervisor died, after a checkpoint; `memr resume` goes on"
    )
    write_summary(path, summary | {"exit_code": 0, "ended_by": "supervisor_died"})
    assert state_of(read_run(path)).startswith("finished"), "every update was made"


async def test_status_tells_a_run_whose_processes_were_all_killed(tmp_path: Path) -> None:
    _, path = await finished(tmp_path)
    claim_run(path, supervisor=None)
    claim = json.loads((path / "process.json").read_text())
    (path / "process.json").write_text(json.dumps(claim | {"owners": {"1": -1.0}}))
    assert "its processes ended without a word: killed, or a power cut; `memr resume` goes on" in state_of(
        read_run(path)
    )


async def test_recent_bottleneck_names_the_side_that_is_waited_for(tmp_path: Path) -> None:
    _, path = await finished(tmp_path)
    run = read_run(path)
    for line in run.metrics:
        line |= {"step_s": 1.0, "wait_rollouts_s": 0.7, "wait_memory_s": 0.0}
    assert "rollout workers" in recent_bottleneck(run)
    assert "70%" in recent_bottleneck(run)
    for line in run.metrics:
        line |= {"wait_rollouts_s": 0.01}
    assert "hardly ever waits" in recent_bottleneck(run)


async def test_before_and_after_pair_evaluations_of_the_same_kind(tmp_path: Path) -> None:
    _, path = await finished(
        tmp_path, eval={"problems": 4, "every_updates": 0, "pass_at_k": 2, "pass_at_k_problems": 2}
    )
    rows = before_after(read_run(path))
    assert rows == [
        ("greedy accuracy, at most 8 tokens (n = 4)", "0.0%", "0.0%"),
        ("pass@2, at most 8 tokens (n = 2)", "100.0%", "100.0%"),
    ]


@pytest.mark.parametrize("kind", [PlainConsole, LiveConsole])
async def test_consoles_show_updates_evaluations_and_a_transcript(kind: type, tmp_path: Path) -> None:
    _, path = await finished(tmp_path, eval={"problems": 4, "every_updates": 0})
    run = read_run(path)
    console = Console(width=160, record=True, force_terminal=kind is LiveConsole)
    watcher = kind(console, 2, "title") if kind is LiveConsole else kind(console, 2)
    for line in run.metrics:
        watcher.watch("metrics", line)
    watcher.watch("eval", run.evals[0])
    watcher.watch("status", run.status or {})
    watcher.show_groups([make_scored(make_group(3))])
    watcher.close()
    text = console.export_text()
    assert "2/2" in text
    assert eval_text(run.evals[0]) in text
    assert ("question 3?" in text) is (kind is LiveConsole)


def test_spark_scales_to_its_own_range() -> None:
    assert spark([0.0, 0.5, 1.0]) == "▁▄█"
    assert spark([2.0, 2.0]) == "▁▁"


def test_event_text_is_a_sentence_not_a_dictionary() -> None:
    line = {"time_s": 1.0, "event": "worker_lost", "worker": "w0", "share": 0.12345, "leases": list(range(8))}
    assert event_text(from_line(line)) == "note: worker lost: worker w0, share 0.123, leases 8 of them"


def test_eval_text_says_what_was_measured() -> None:
    import dataclasses

    assert "accuracy 25.0% of 10 held-out problems (at most 8 tokens" in eval_text(
        dataclasses.asdict(evaluation(0, 0.25))
    )
    assert "pass@4 25.0%" in eval_text(dataclasses.asdict(evaluation(0, 0.25, k=4)))


def test_metrics_end_at_the_first_zeros_and_of_events_the_later_ones_stay(tmp_path: Path) -> None:
    """Replay writes metrics again, in their order; an event after the zeros is the supervisor's, of after the cut."""
    for name in ("metrics.jsonl", "events.jsonl"):
        (tmp_path / name).write_bytes(b'{"step": 1}\n{"st\0\0\0\0\n{"step": 2}\n{"step"')
    recorder = Recorder(tmp_path)
    assert recorder.last_step() == 1
    recorder.metrics({"step": 2})
    recorder.sync()
    recorder.close()
    assert (tmp_path / "metrics.jsonl").read_text().splitlines() == [f'{{"step": {step}}}' for step in (1, 2)]
    assert (tmp_path / "events.jsonl").read_text().splitlines() == [f'{{"step": {step}}}' for step in (1, 2)]


class Syncs:
    """Paths that were synced, by the name of their file, in order; `threads` asked for them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: list[str] = []
        self.threads: set[int] = set()
        really = os.fsync

        def fsync(descriptor: int) -> None:
            self.names.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
            if "parquet" in self.names[-1]:
                self.threads.add(threading.get_ident())
            really(descriptor)

        monkeypatch.setattr(os, "fsync", fsync)

    def transcripts(self) -> list[str]:
        return [name for name in self.names if "-trained-" in name or "-dropped-" in name]


def test_transcripts_are_written_at_once_and_synced_once_with_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder, syncs = Recorder(tmp_path), Syncs(monkeypatch)
    recorder.groups(1, [make_scored(make_group(0))])
    recorder.groups(1, [make_scored(make_group(1))], fate="dropped")
    first = ["step-000001-trained-00000000.parquet", "step-000001-dropped-00000001.parquet"]
    assert sorted(path.name for path in (tmp_path / "rollouts").iterdir()) == sorted(first)
    assert syncs.names == []
    recorder.sync()
    assert syncs.names == [*first, "rollouts"], "their folder last"
    recorder.groups(2, [make_scored(make_group(2))])
    recorder.sync()
    recorder.close()
    assert syncs.transcripts() == [*first, "step-000002-trained-00000002.parquet"]


def test_a_sync_that_the_disk_refused_is_made_the_next_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(tmp_path)
    recorder.groups(1, [make_scored(make_group(0))])

    def refuses(descriptor: int) -> None:
        raise OSError("refused")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", refuses)
        with pytest.raises(OSError, match="refused"):
            recorder.sync()
    syncs = Syncs(monkeypatch)
    recorder.sync()
    assert syncs.transcripts() == ["step-000001-trained-00000000.parquet"]


def test_a_transcript_that_somebody_took_away_is_no_error(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    recorder.groups(1, [make_scored(make_group(0))])
    for path in (tmp_path / "rollouts").iterdir():
        path.unlink()
    recorder.sync()


def test_transcripts_of_an_earlier_life_are_synced_with_the_next_checkpoint_and_torn_ones_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Recorder(tmp_path)
    for step in (1, 2, 3):
        before.groups(step, [make_scored(make_group(step))], fate="dropped")
    torn = tmp_path / "rollouts" / "step-000003-dropped-00000003.parquet"
    torn.write_bytes(bytes(torn.stat().st_size))
    recorder, syncs = Recorder(tmp_path), Syncs(monkeypatch)
    recorder.restore_transcripts(2)
    recorder.sync()
    assert syncs.transcripts() == ["step-000002-dropped-00000002.parquet"]
    assert sorted(int(path.name[5:11]) for path in (tmp_path / "rollouts").iterdir()) == [1, 2]


async def test_a_report_leaves_a_torn_transcript_out(tmp_path: Path) -> None:
    _, path = await finished(tmp_path)
    assert len(_transcripts(path)) == 2
    torn = sorted((path / "rollouts").glob("*-trained-*"))[-1]
    torn.write_bytes(bytes(torn.stat().st_size))
    assert len(_transcripts(path)) == 1


async def test_a_run_syncs_its_transcripts_beside_the_loops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, syncs = Run(make_config(tmp_path, updates=4, cluster={"checkpoint_every_updates": 2})), Syncs(monkeypatch)
    await run.run()
    assert len(syncs.transcripts()) == len(set(syncs.transcripts())) == 4
    at_checkpoint = [name for name in syncs.names if "-trained-" in name or name == "step-000002"]
    assert at_checkpoint[:2] == [f"step-00000{i}-trained-{4 * (i - 1):08d}.parquet" for i in (1, 2)]
    assert syncs.threads.isdisjoint({threading.get_ident()})


def test_resume_of_what_is_no_run_and_of_another_place_is_refused_as_wrongly_called(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a run"):
        resume(tmp_path / "r")
    path = create_run(make_config(tmp_path), {})
    for place in ("run.name=elsewhere", "run.directory = elsewhere"):
        with pytest.raises(ConfigError, match=f"--set {place}: `memr resume` goes on in the folder"):
            resume(path, [place])
    (path / "manifest.json").write_text("")
    with pytest.raises(DataError, match="restore it from a copy"):
        resume(path)
