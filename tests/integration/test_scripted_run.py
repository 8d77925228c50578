"""Whole runs on real Ray with the scripted engine: what a user sees, and what is on disk afterwards."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from storage.arrow import read_groups

ROOT = Path(__file__).resolve().parents[2]
SCRIPTED = ROOT / "configs" / "scripted.toml"
SHORT = ["learner.num_updates=6", "eval.problems=20", "eval.every_updates=3", "cluster.checkpoint_every_updates=3"]


def memr(*arguments: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, as a user calls it."""
    command = [sys.executable, "-m", "cluster", *arguments]
    environment = os.environ | {"COLUMNS": "200"}
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, cwd=ROOT, env=environment)


def sets(directory: Path, name: str, *more: str) -> list[str]:
    values = [f"run.directory={directory}", f"run.name={name}", *SHORT, *more]
    return [argument for value in values for argument in ("--set", value)]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("runs")
    done = memr("train", str(SCRIPTED), *sets(directory, "done"))
    assert done.returncode == 0, done.stdout + done.stderr
    return directory / "done"


def test_ledger_metrics_and_groups_on_disk_agree(finished: Path) -> None:
    metrics = lines(finished / "metrics.jsonl")
    assert [line["step"] for line in metrics] == list(range(1, 7))
    ledger = metrics[-1]["ledger"]
    assert ledger == {"issued": 48, "trained": 48, "dropped": 0, "failed": 0, "in_flight": 0, "buffered": 0}
    stored = [scored for path in sorted((finished / "rollouts").glob("*.parquet")) for scored in read_groups(path)]
    assert sorted(scored.group.lease_id for scored in stored) == list(range(48))
    assert sorted(scored.memory_version for scored in stored) == list(range(48)), "one memory version per group"
    fates = [event for event in lines(finished / "ledger" / "events.jsonl") if event["fate"] == "trained"]
    assert sorted(event["lease_id"] for event in fates) == list(range(48))


def test_every_promised_metric_is_there(finished: Path) -> None:
    promised = {
        "step",
        "policy_version",
        "task_reward",
        "intrinsic_exploit",
        "intrinsic_explore",
        "reward",
        "lag_mean",
        "lag_max",
        "tokens_trained",
        "tokens_generated",
        "step_s",
        "wait_rollouts_s",
        "wait_memory_s",
        "mismatch_mean",
        "mismatch_p99",
        "mismatch_max",
        "merged_survival",
        "sampled_survival",
        "entropy",
        "kl",
        "grad_norm",
        "adapter_delta_norm",
        "completion_tokens_mean",
        "truncated_share",
        "zero_variance_share",
        "memory_version",
        "memory_episodes",
        "memory_late",
        "ledger",
    }
    last = lines(finished / "metrics.jsonl")[-1]
    assert promised <= set(last)
    assert last["lag_max"] <= 2
    assert last["memory_episodes"] > 0
    evals = lines(finished / "eval.jsonl")
    assert sorted(line["step"] for line in evals) == [0, 3, 6]


def test_status_report_memory_and_check_work_on_a_finished_run(finished: Path) -> None:
    status = memr("status", str(finished))
    assert "finished, 6 updates" in status.stdout
    assert memr("report", str(finished)).returncode == 0
    html = (finished / "report.html").read_text()
    assert html.count("data:image/png") == 11
    assert "What is" in html
    assert "success" in memr("memory", "inspect", str(finished)).stdout
    assert "What is" in memr("memory", "query", str(finished), "What is 3 + 4?").stdout


def test_the_same_command_again_shows_the_result_and_trains_nothing(finished: Path) -> None:
    before = (finished / "metrics.jsonl").read_bytes()
    again = memr("train", str(SCRIPTED), *sets(finished.parent, "done"))
    assert again.returncode == 0
    assert "has run already" in again.stdout
    assert (finished / "metrics.jsonl").read_bytes() == before


def test_interrupt_writes_a_checkpoint_and_says_130(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "cluster",
        "train",
        str(SCRIPTED),
        *sets(tmp_path, "stopped", "learner.num_updates=2000"),
    ]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    metrics = tmp_path / "stopped" / "metrics.jsonl"
    deadline = time.monotonic() + 90
    while not (metrics.exists() and metrics.read_text().count("\n") >= 2):
        assert process.poll() is None
        assert time.monotonic() < deadline, "the run never got to its second update"
        time.sleep(0.1)
    everything = [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]
    sockets = [
        c for pid in everything for c in psutil.Process(pid).net_connections(kind="inet") if c.status == "LISTEN"
    ]
    assert sockets
    assert all(c.laddr.ip in ("127.0.0.1", "::1", "::ffff:127.0.0.1") for c in sockets), (
        "nothing listens beyond loopback"
    )
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    checkpoint = sorted((tmp_path / "stopped" / "checkpoints").glob("step-*"))[-1]
    assert (checkpoint / "checkpoint.json").exists()
    assert list((checkpoint / "memory").glob("snapshot-*/manifest.json"))
    assert "stopped on request" in memr("status", str(tmp_path / "stopped")).stdout


@pytest.mark.parametrize(
    ("override", "code", "message"),
    [
        ("learner.num_update=5", 2, "did you mean 'num_updates'"),
        ("actors.scripted.faults.raise=1.0", 3, "0 rollout workers are left"),
        ("task.max_prompt_tokens=3", 2, "task.max_prompt_tokens"),
    ],
)
def test_a_users_mistake_is_one_message_and_an_exit_code(
    override: str, code: int, message: str, tmp_path: Path
) -> None:
    done = memr("train", str(SCRIPTED), *sets(tmp_path, "wrong", override))
    assert done.returncode == code, done.stdout + done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


def test_a_worker_that_dies_gives_its_problems_to_the_other(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "cluster",
        "train",
        str(SCRIPTED),
        *sets(tmp_path, "killed", "learner.num_updates=60"),
    ]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    victim = None
    deadline = time.monotonic() + 90
    while victim is None:
        assert process.poll() is None
        assert time.monotonic() < deadline, "no worker ever started sampling"
        children = psutil.Process(process.pid).children(recursive=True)
        victim = next((c for c in children if "RolloutWorkerActor.sample" in " ".join(_cmdline(c))), None)
    victim.kill()
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    ledger = lines(tmp_path / "killed" / "metrics.jsonl")[-1]["ledger"]
    assert (ledger["trained"], ledger["in_flight"], ledger["buffered"]) == (480, 0, 0)
    lost = [event for event in lines(tmp_path / "killed" / "events.jsonl") if event["event"] == "worker_lost"]
    assert len(lost) == 1


def _cmdline(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def test_every_next_step_that_is_printed_works(finished: Path) -> None:
    """The last one goes on with the run, so it is asked of a copy."""
    copy = Path(shutil.copytree(finished, finished.with_name("copied (once)")))
    steps = [line.strip() for line in memr("status", str(copy)).stdout.partition("next:")[2].splitlines()]
    assert len(steps) == 3
    for step in steps:
        command, *rest = shlex.split(step, comments=True)[1:]
        done = memr("check-task" if command == "train" else command, *rest)  # training a real model takes its time
        assert done.returncode == 0, f"{step}\n{done.stdout}{done.stderr}"
    assert [line["step"] for line in lines(copy / "metrics.jsonl")] == list(range(1, 13))


def test_logs_of_every_process_are_in_the_run_directory(finished: Path) -> None:
    logs = finished / "logs"
    assert [path.name for path in logs.iterdir()] == ["001"]
    found = {path.name for path in (logs / "001").iterdir()}
    assert found == {"controller.err", "controller.log", "learner.log", "memory.log", "worker-0.log", "worker-1.log"}
    told = (logs / "001" / "controller.log").read_text()
    assert "update    6/6" in told
    assert "eval, version 6" in told


TASK = """
import os, sys
from tasks.arithmetic import arithmetic_task

def loud(settings):
    print("a task says", os.environ.get("MY_VARIABLE"))
    print("and complains", file=sys.stderr)
    print("its niceness is", os.nice(0), "and its threads spin", os.environ.get("GOMP_SPINCOUNT"))
    return arithmetic_task(settings)
"""


def test_what_users_code_prints_in_a_worker_is_in_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "loud_task.py").write_text(TASK)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    more = ["task.kind=loud_task:loud", "learner.num_updates=1", "eval.problems=0", "cluster.env.MY_VARIABLE=mine"]
    more += ["cluster.env.GOMP_SPINCOUNT=5000"]
    done = memr("train", str(SCRIPTED), *sets(tmp_path, "loud", *more))
    assert done.returncode == 0, done.stdout + done.stderr
    logs = (tmp_path / "loud" / "logs" / "001").glob("worker-*.log")  # one update may be over before both have begun
    told = "".join(path.read_text() for path in logs)
    assert "a task says mine" in told
    assert "and complains" in told
    assert f"its niceness is {os.nice(0)} and its threads spin 5000" in told, (
        "the starter's niceness, the user's variable"
    )
