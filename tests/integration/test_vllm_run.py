"""A run on real vLLM workers loses its engine in the middle: nothing is lost, the worker is replaced, the run finishes."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from cluster.record.events.workers import Proven
from cluster.record.run_view import read_run
from tests.integration.test_scripted_run import ROOT, lines

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
SETTINGS = {
    "run.name": "engine-dies",
    "learner.num_updates": 3,
    "learner.max_policy_lag": 1,
    "cluster.groups_per_batch": 2,
    "cluster.tensorboard": "false",
    "actors.rollouts_per_group": 4,
    "actors.max_new_tokens": 8,
    "actors.vllm.max_num_seqs": 8,
    "actors.vllm.kv_cache_bytes": 2**27,
    "eval.problems": 4,
}


def kill_engine(run: "subprocess.Popen[bytes]", path: Path) -> None:
    """As soon as the first version is proven, which means that rollouts are under way."""
    events = path / "events.jsonl"
    limit = time.monotonic() + 240
    while not (events.exists() and any(line["event"] == "proven" for line in lines(events))):
        assert run.poll() is None, "the run ended before its first proof"
        assert time.monotonic() < limit, "no version was proven"
        time.sleep(0.2)
    [engine] = [p for p in psutil.Process(run.pid).children(recursive=True) if "EngineCore" in " ".join(p.cmdline())]
    threads = [thread.id for process in (engine, *engine.children(recursive=True)) for thread in process.threads()]
    bound = [thread for thread in threads if os.sched_getaffinity(thread) != os.sched_getaffinity(0)]
    assert not bound, "a thread whose core somebody else uses can move away"
    assert {process.nice() for process in (engine, *engine.children(recursive=True))} == {os.nice(0)}
    engine.kill()


def test_an_engine_that_dies_costs_a_worker_and_no_rollout(tmp_path: Path, smollm2_dir: Path) -> None:
    settings = SETTINGS | {"run.directory": tmp_path}
    overrides = [text for key, value in settings.items() for text in ("--set", f"{key}={value}")]
    command = [sys.executable, "-m", "cluster", "train", "configs/vllm_cpu.toml", *overrides]
    path = tmp_path / "engine-dies"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=ROOT) as run:
        kill_engine(run, path)
        assert run.wait(timeout=400) == 0
    record = read_run(path)
    kinds = [event.name for event in record.events]
    assert kinds.count("worker_lost") == 1
    assert kinds.count("joined") == 2
    ledger = record.metrics[-1]["ledger"]
    assert (ledger["trained"], ledger["failed"], ledger["dropped"]) == (6, 0, 0)
    assert [line["policy_version"] for line in record.metrics] == [1, 2, 3]
    assert all(line["mismatch_mean"] < 0.3 for line in record.metrics), "bfloat16, up to one version of lag"
    proven = {event.version for event in record.events if isinstance(event, Proven)}
    assert 0 in proven
    assert max(proven) > 0, "the worker that came later serves what is newest then, which may skip versions"
    assert "version_refused" not in kinds
    assert {line["step"] for line in record.evals} == {0, 3}
