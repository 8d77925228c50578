"""kill -9 of a real run, and what comes of it: the same adapter, memory and ledger, nothing lost, nothing twice."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest

from cluster.record.events.resuming import ReplayedDifferently, Resumed
from cluster.record.run_view import read_run
from storage.arrow import read_groups
from tests.integration.test_scripted_run import ROOT, lines

pytestmark = pytest.mark.timeout(500)


def start(config: str, directory: Path, name: str, settings: dict[str, Any]) -> "subprocess.Popen[str]":
    values = {"run.directory": directory, "run.name": name, "cluster.tensorboard": "false"} | settings
    overrides = [text for key, value in values.items() for text in ("--set", f"{key}={value}")]
    command = [sys.executable, "-m", "cluster", "train", f"configs/{config}.toml", *overrides]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT)


def finish(process: "subprocess.Popen[str]") -> str:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output[-3000:]
    return output


def kill_at_step(process: "subprocess.Popen[str]", path: Path, step: int, moment_s: float) -> None:
    """Every process of the run at once, as when the machine's owner pulls the plug."""
    limit = time.monotonic() + 200
    while not (path / "metrics.jsonl").exists() or len(lines(path / "metrics.jsonl")) < step:
        assert process.poll() is None, process.communicate()[0][-3000:]
        assert time.monotonic() < limit
        time.sleep(0.01)
    time.sleep(moment_s)
    tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for member in tree:
        try:
            os.kill(member.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.communicate()


def resume(path: Path) -> str:
    command = [sys.executable, "-m", "cluster", "resume", str(path)]
    return finish(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT))


def fingerprint(path: Path, updates: int) -> dict[str, str]:
    """Last adapter and last memory snapshot, byte by byte."""
    adapter = [*path.glob(f"adapters/v{updates:06d}-*/adapter_model.safetensors")]
    memory = [*path.glob(f"checkpoints/step-{updates:06d}/memory/*/*")]
    assert (len(adapter), len(memory)) == (1, 4), (adapter, memory)
    return {str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest() for file in adapter + memory}


def trained_on(path: Path) -> list[tuple[int, list[float], list[str]]]:
    """Lease, bonuses and texts of every group in the run's transcripts."""
    stored = [group for file in sorted(path.glob("rollouts/*.parquet")) for group in read_groups(file)]
    return [(s.group.lease_id, s.bonus_G.tolist(), [r.text for r in s.group.rollouts]) for s in stored]


def fates(path: Path) -> Counter[str]:
    return Counter(f"{line['lease_id']} {line['fate']}" for line in lines(path / "ledger" / "events.jsonl"))


@pytest.mark.long
@pytest.mark.parametrize(("step", "moment_s"), [(11, 0.07)])
def test_synchronous_scripted_run_killed_and_resumed_equals_one_that_was_not(
    tmp_path: Path, step: int, moment_s: float
) -> None:
    settings = {
        "learner.max_policy_lag": 0,
        "learner.num_updates": 15,
        "actors.num_workers": 1,
        "cluster.checkpoint_every_updates": 4,
        "actors.scripted.latency_per_token_s": 0.01,
        "eval.problems": 16,
    }
    finish(start("scripted", tmp_path, "whole", settings))
    killed = start("scripted", tmp_path, "killed", settings)
    kill_at_step(killed, tmp_path / "killed", step, moment_s)
    resume(tmp_path / "killed")
    whole, again = tmp_path / "whole", tmp_path / "killed"
    assert fingerprint(again, 15) == fingerprint(whole, 15)
    assert fates(again) == fates(whole)
    assert trained_on(again) == trained_on(whole)
    assert [line["step"] for line in lines(again / "metrics.jsonl")] == list(range(1, 16))
    [resumed] = [event for event in read_run(again).events if isinstance(event, Resumed)]
    assert resumed.memory_difference == 0.0
    assert not [event for event in read_run(again).events if isinstance(event, ReplayedDifferently)]


def test_asynchronous_run_killed_twice_trains_every_problem_once(tmp_path: Path) -> None:
    settings = {"learner.num_updates": 30, "cluster.checkpoint_every_updates": 5, "eval.problems": 0}
    path = tmp_path / "killed"
    kill_at_step(start("scripted", tmp_path, "killed", settings), path, 7, 0.03)
    command = [sys.executable, "-m", "cluster", "resume", str(path)]
    second = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT)
    kill_at_step(second, path, 18, 0.0)
    resume(path)
    record = read_run(path)
    ledger = record.metrics[-1]["ledger"]
    assert (ledger["trained"], ledger["failed"], ledger["dropped"]) == (240, 0, 0)
    trained = Counter(line["lease_id"] for line in lines(path / "ledger" / "events.jsonl") if line["fate"] == "trained")
    assert len(trained) == 240
    assert set(trained.values()) == {1}
    again = subprocess.run(
        [sys.executable, "-m", "cluster", "replay", str(path)], capture_output=True, text=True, cwd=ROOT, timeout=120
    )
    assert again.returncode == 0, again.stderr
    assert "largest difference 0" in " ".join(again.stdout.split())
    assert [line["policy_version"] for line in record.metrics] == list(range(1, 31)), "versions never go back"


def test_another_configuration_is_refused_and_a_finished_run_shows_its_result(tmp_path: Path) -> None:
    settings = {"learner.num_updates": 3, "eval.problems": 0}
    finish(start("scripted", tmp_path, "done", settings))
    again = finish(start("scripted", tmp_path, "done", settings))
    assert "has run already" in " ".join(again.split())
    (tmp_path / "done" / "summary.json").unlink()
    changed = start("scripted", tmp_path, "done", settings | {"actors.temperature": 0.5})
    output, _ = changed.communicate(timeout=60)
    assert changed.returncode == 2
    assert "actors.temperature: was 1.0, is 0.5" in " ".join(output.split())
