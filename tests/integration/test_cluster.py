"""More than one machine: several raylets here, a run that joins them, a node that disappears and returns."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_scripted_run import ROOT, lines

pytestmark = pytest.mark.timeout(400)
TOKEN = "a" * 64
MEGABYTES = 8


class SmallCluster:
    def __init__(self, mode: str = "token") -> None:
        self.environment = os.environ | {"RAY_AUTH_MODE": mode, "RAY_AUTH_TOKEN": TOKEN, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "tests.integration.small_cluster"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT,
            env=self.environment,
        )  # fmt: skip
        self.address = self._answer("address").split()[1]

    def add(self, cpus: int = 1) -> str:
        return self._say(f"add {cpus}", "node").split()[1]

    def remove(self, node_id: str) -> None:
        self._say(f"remove {node_id}", "removed")

    def stats(self) -> dict[str, dict[str, int]]:
        loaded: dict[str, dict[str, int]] = json.loads(self._say("stats", "{"))
        return loaded

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)
        self._process.stdout.close()

    def _say(self, line: str, answer: str) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._answer(answer)

    def _answer(self, beginning: str) -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(beginning):
                return line
        raise AssertionError(f"the cluster ended before it said '{beginning}'")


@pytest.fixture
def cluster() -> Iterator[SmallCluster]:
    started = SmallCluster()
    yield started
    started.close()


def start_run(cluster: SmallCluster, directory: Path, **settings: Any) -> "subprocess.Popen[str]":
    values = {
        "run.directory": directory,
        "run.name": "spread",
        "learner.num_updates": 400,
        "learner.torch_threads": 1,
        "actors.scripted.latency_per_request_s": 0.2,
        "actors.max_batch_rows": 8,
        "actors.num_workers": 3,
        "learner.scripted.adapter_bytes": MEGABYTES * 2**20,
        "learner.scripted.update_s": 0.2,
        "eval.problems": 0,
    } | settings
    overrides = [text for key, value in values.items() for text in ("--set", f"{key}={value}")]
    command = [
        sys.executable,
        "-m",
        "cluster",
        "train",
        "configs/scripted.toml",
        "--address",
        cluster.address,
        *overrides,
    ]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, env=cluster.environment
    )


def until(condition: Callable[[], bool], run: "subprocess.Popen[str]", what: str, timeout_s: float = 120) -> None:
    limit = time.monotonic() + timeout_s
    while not condition():
        assert run.poll() is None, f"the run ended before {what}: {run.communicate()[0][-2000:]}"
        assert time.monotonic() < limit, f"{what} did not come"
        time.sleep(0.2)


def events(path: Path, kind: str) -> list[dict[str, Any]]:
    file = path / "events.jsonl"
    return [line for line in lines(file) if line["event"] == kind] if file.exists() else []


def serving(path: Path) -> int:
    file = path / "status.json"
    return int(json.loads(file.read_text())["workers"]) if file.exists() else 0


def stop(run: "subprocess.Popen[str]", cluster: SmallCluster, path: Path) -> str:
    command = [sys.executable, "-m", "cluster", "stop", str(path)]
    subprocess.run(command, check=True, cwd=ROOT, env=cluster.environment, capture_output=True, timeout=60)
    output, _ = run.communicate(timeout=120)
    assert run.returncode == 130, output
    return output


def test_workers_on_three_nodes_lose_one_node_and_get_it_back(cluster: SmallCluster, tmp_path: Path) -> None:
    nodes = [cluster.add() for _ in range(3)]
    run, path = start_run(cluster, tmp_path), tmp_path / "spread"
    until(lambda: serving(path) == 3, run, "three workers serving")
    cluster.remove(nodes[0])
    until(lambda: len(events(path, "worker_lost")) == 1, run, "the loss")
    step = lines(path / "metrics.jsonl")[-1]["step"]
    until(lambda: lines(path / "metrics.jsonl")[-1]["step"] > step + 3, run, "progress on two nodes")
    assert serving(path) == 2, "there is no room for a third"
    cluster.add()
    until(lambda: serving(path) == 3, run, "the third worker on the node that came")
    stop(run, cluster, path)
    ledger = lines(path / "metrics.jsonl")[-1]["ledger"]
    assert ledger["issued"] == sum(count for name, count in ledger.items() if name != "issued")
    assert (ledger["failed"], ledger["dropped"]) == (0, 0)
    assert max(line["lag_max"] for line in lines(path / "metrics.jsonl")) <= 2


@pytest.mark.long
def test_an_adapter_goes_to_a_node_once_however_many_workers_it_has(cluster: SmallCluster, tmp_path: Path) -> None:
    node = cluster.add(cpus=4)  # the head has no room for a worker
    run, path = start_run(cluster, tmp_path, **{"actors.num_workers": 4}), tmp_path / "spread"
    until(lambda: serving(path) == 4, run, "four workers serving")

    def proven_and_bytes() -> tuple[int, int]:
        return len(events(path, "proven")), cluster.stats()[node]["bytes"]

    proofs, before = proven_and_bytes()
    until(lambda: len(events(path, "proven")) >= proofs + 40, run, "ten more versions on four workers")
    proofs, copied = (after - earlier for after, earlier in zip(proven_and_bytes(), (proofs, before), strict=True))
    stop(run, cluster, path)
    versions = proofs / 4
    copies = copied / (MEGABYTES * 2**20) / versions
    assert 0.7 < copies < 1.5, f"{copies:.2f} copies of each version came to a node with four workers"


def test_a_cluster_that_is_too_small_is_told_before_anything_starts(cluster: SmallCluster, tmp_path: Path) -> None:
    cluster.add()
    run = start_run(cluster, tmp_path, **{"actors.num_workers": 5})
    output, _ = run.communicate(timeout=120)
    assert run.returncode == 2
    assert "1 of 5 fit" in " ".join(output.split())


def test_without_the_token_nobody_joins(cluster: SmallCluster, tmp_path: Path) -> None:
    cluster.environment = cluster.environment | {"RAY_AUTH_TOKEN": "b" * 64}
    run = start_run(cluster, tmp_path)
    output, _ = run.communicate(timeout=120)
    assert run.returncode == 3
    assert "cannot join the Ray cluster" in " ".join(output.split())


def test_a_cluster_that_anybody_may_join_is_refused_unless_that_is_meant(tmp_path: Path) -> None:
    with closing(SmallCluster(mode="disabled")) as cluster:
        run = start_run(cluster, tmp_path)
        output, _ = run.communicate(timeout=120)
        assert run.returncode == 2
        assert "asks for no token" in " ".join(output.split())
        cluster.environment = cluster.environment | {"MEMR_JOIN_OPEN_CLUSTER": "1"}
        cluster.add()
        insists = start_run(cluster, tmp_path, **{"actors.num_workers": 5})
        output, _ = insists.communicate(timeout=120)
        assert insists.returncode == 2
        assert "1 of 5 fit" in " ".join(output.split()), "it joined, and found too few nodes"
