"""What the processes of a run print is kept in RUN/logs, one folder for each life of the run's own process."""

import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import ray
from rich.console import Console

from cluster.config.supervision import SupervisionSettings
from cluster.launch.placement import Bundle, Placement
from cluster.launch.process_env import actor_environment
from cluster.launch.ray_handles import PlacementOptions, actor_with, with_root_cause
from cluster.record.process_log import CONTROLLER_LOG, begin_log, last_error, new_attempt, newest_attempt
from cluster.recovery.supervisor import Supervisor
from cluster.watch.watchers import watchers
from contracts.errors import DataError
from tests.harness import make_config


def test_attempts_are_numbered_and_the_newest_is_found(tmp_path: Path) -> None:
    assert newest_attempt(tmp_path) is None
    assert [new_attempt(tmp_path), new_attempt(tmp_path)] == [tmp_path / "logs" / "001", tmp_path / "logs" / "002"]
    for number in range(3, 1001):
        (tmp_path / "logs" / f"{number:03d}").mkdir()
    (tmp_path / "logs" / "notes").mkdir()
    assert newest_attempt(tmp_path) == tmp_path / "logs" / "1000"
    assert new_attempt(tmp_path) == tmp_path / "logs" / "1001"


def test_a_place_that_takes_no_logs_is_no_reason_not_to_run(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file is in the way")
    assert new_attempt(tmp_path) is None


def supervised(run: Path, body: str, **settings: Any) -> int:
    run.mkdir(exist_ok=True)
    command = [sys.executable, "-c", f"import os, pathlib, sys, time\nrun = pathlib.Path({str(run)!r})\n{body}"]
    return Supervisor(command, run, SupervisionSettings(**settings), say=lambda _text: None).run()


BEGINS = "(run / 'manifest.json').write_text('{}')\n"


def test_stderr_of_the_runs_process_is_kept_and_shown(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert supervised(tmp_path / "r", BEGINS + "print('words of a library', file=sys.stderr)") == 0
    assert (tmp_path / "r" / "logs" / "001" / "controller.err").read_text() == "words of a library\n"
    assert capfd.readouterr().err == "words of a library\n"


def test_a_run_that_never_began_takes_away_its_own_logs_and_nothing_else(tmp_path: Path) -> None:
    """A folder of the user's may bear the run's name, with logs of its own."""
    theirs = tmp_path / "r" / "logs" / "007" / "mine.txt"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("a year of work")
    supervised(tmp_path / "r", "sys.exit(2)")
    assert [path for path in (tmp_path / "r" / "logs").rglob("*") if path.is_file()] == [theirs]
    assert theirs.read_text() == "a year of work"
    assert list(theirs.parents[1].iterdir()) == [theirs.parent], "and not its own empty folder either"


def test_of_a_run_that_never_began_no_logs_folder_is_left(tmp_path: Path) -> None:
    assert supervised(tmp_path / "r", "sys.exit(2)") == 2
    assert not (tmp_path / "r" / "logs").exists()


def test_a_log_of_the_runs_own_process_that_cannot_be_opened_is_no_reason_not_to_run(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder is in the way of each file, for want of a disk that is full."""
    (tmp_path / "controller.err").mkdir()
    (tmp_path / CONTROLLER_LOG).mkdir()
    monkeypatch.setattr("cluster.recovery.stderr_tail.new_attempt", lambda _run_path: tmp_path)
    assert supervised(tmp_path / "r", BEGINS + "print('words of a library', file=sys.stderr)") == 0
    assert capfd.readouterr().err == "words of a library\n"
    config = make_config(tmp_path)
    with_log, without = (watchers(config, tmp_path, Console(), logs, lambda _event: None) for logs in (tmp_path, None))
    assert len(with_log) == len(without)


def test_last_words_of_a_crash_are_kept_for_each_life(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    body = BEGINS + "first = not (run / 'was').exists(); (run / 'was').touch()\n"
    body += "import faulthandler; faulthandler.enable()\nif first: os.abort()\nprint('well', file=sys.stderr)"
    assert supervised(tmp_path / "r", body) == 0
    logs = tmp_path / "r" / "logs"
    assert "Fatal Python error: Aborted" in (logs / "001" / "controller.err").read_text()
    assert (logs / "002" / "controller.err").read_text() == "well\n"
    assert "Fatal Python error: Aborted" in capfd.readouterr().err


def test_a_run_that_never_began_leaves_no_logs(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert supervised(tmp_path / "r", "print('wrong', file=sys.stderr); sys.exit(2)") == 2
    assert list((tmp_path / "r").iterdir()) == []
    assert capfd.readouterr().err == "wrong\n"


def test_a_process_that_outlives_its_supervisor_may_still_write(tmp_path: Path) -> None:
    """Through a pipe the first word of a library would break its last checkpoint."""
    run = tmp_path / "r"
    body = BEGINS + "time.sleep(1.5)\nsys.stderr.write('still here\\n'); sys.stderr.flush(); (run / 'done').touch()"
    script = f"from tests.unit.cluster.test_process_log import supervised; from pathlib import Path; supervised(Path({str(run)!r}), {body!r})"
    supervisor = subprocess.Popen([sys.executable, "-c", script])
    while not (run / "manifest.json").exists():
        assert supervisor.poll() is None
    supervisor.kill()
    supervisor.wait(timeout=10)
    for _ in range(200):
        if (run / "done").exists():
            break
        time.sleep(0.1)
    assert (run / "logs" / "001" / "controller.err").read_text() == "still here\n"


def in_a_child(body: str) -> None:
    subprocess.run([sys.executable, "-c", body], check=True, timeout=60, capture_output=True)


def test_what_a_process_and_its_children_print_goes_to_its_log(tmp_path: Path) -> None:
    path = tmp_path / "worker-0.log"
    in_a_child(
        "import os, sys, logging\nfrom cluster.record.process_log import begin_log\n"
        f"begin_log(None, {str(path)!r}, 'info')\n"
        "print('a print', flush=True); sys.stderr.write('an error\\n'); os.system('echo of a child')\n"
        "logging.getLogger('lib').info('told'); logging.getLogger('lib').debug('not told')"
    )
    lines = path.read_text().splitlines()
    assert lines[:3] == ["a print", "an error", "of a child"]
    assert lines[3].endswith("INFO lib: told")
    assert len(lines) == 4


def test_a_part_that_is_brought_back_goes_on_in_its_log(tmp_path: Path) -> None:
    path = tmp_path / "learner.log"
    for life in (1, 2):
        in_a_child(
            f"from cluster.record.process_log import begin_log; begin_log(None, {str(path)!r}, 'info'); print({life})"
        )
    assert path.read_text() == "1\n2\n"


def test_a_node_that_does_not_see_the_run_directory_keeps_its_own_files(tmp_path: Path) -> None:
    before = os.fstat(1)
    begin_log(None, str(tmp_path / "not" / "here" / "worker.log"), "info")
    assert os.path.samestat(before, os.fstat(1))


def test_the_controllers_logging_goes_to_a_file(tmp_path: Path) -> None:
    in_a_child(
        "import logging\nfrom pathlib import Path\nfrom cluster.record.process_log import log_to_file\n"
        f"log_to_file(Path({str(tmp_path / 'c.log')!r}), 'warning'); logging.warning('seen'); logging.info('not')"
    )
    assert (tmp_path / "c.log").read_text().endswith("WARNING root: seen\n")


def test_a_log_that_cannot_be_opened_is_no_reason_not_to_run(tmp_path: Path) -> None:
    path = tmp_path / "no" / "c.log"
    in_a_child(
        f"from pathlib import Path\nfrom cluster.record.process_log import log_to_file\nlog_to_file(Path({str(path)!r}), 'info')"
    )
    assert not path.exists()


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ("a\nValueError: no such layer\nb\n", "ValueError: no such layer"),
        (
            "(EngineCore pid=7) ERROR 11-27 torch.OutOfMemoryError: CUDA out of memory.\nRuntimeError: \n",
            "torch.OutOfMemoryError: CUDA out of memory.",
        ),
        (
            "ValueError: No available memory for the cache blocks\n"
            "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}\n",
            "ValueError: No available memory for the cache blocks",
        ),
        ("all is well, no Error here\n", ""),
        ("", ""),
    ],
)
def test_the_last_error_of_a_log_is_found(log: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "w.log").write_text("x" * 200_000 + "\n" + log)
    assert last_error(tmp_path / "w.log") == expected
    assert last_error(tmp_path / "none.log") == ""


def test_the_root_cause_of_an_engine_that_did_not_start_is_taken_from_the_workers_log(tmp_path: Path) -> None:
    log = tmp_path / "worker-0.log"
    log.write_text("(EngineCore pid=7) torch.AcceleratorError: CUDA error: uncorrectable ECC error\n")
    died = DataError("vLLM cannot serve m: Engine core initialization failed. See root cause above")
    told = with_root_cause(died, log)
    assert type(told) is DataError
    assert str(told) == f"{died}. Its root cause: torch.AcceleratorError: CUDA error: uncorrectable ECC error ({log})"
    other = DataError("no such model")
    assert with_root_cause(other, log) is other
    assert with_root_cause(died, tmp_path / "elsewhere.log") is died


def test_the_environment_of_actors_is_memrs_and_the_users_and_hides_gpus_that_were_not_asked_for() -> None:
    own = {"VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "WARNING", "HOME": "/root", "RAY_AUTH_MODE": "token"}
    found = actor_environment(own, {"NCCL_SOCKET_IFNAME": "eth1", "VLLM_NO_USAGE_STATS": "0"}, "debug")
    assert found == {
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
        "RAY_worker_niceness": "0",
        "GOMP_SPINCOUNT": "1000",
        "KMP_BLOCKTIME": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "VLLM_NO_USAGE_STATS": "0",
        "VLLM_LOGGING_LEVEL": "DEBUG",
        "NCCL_SOCKET_IFNAME": "eth1",
    }
    chosen = actor_environment(own | {"VLLM_LOGGING_LEVEL": "ERROR"}, {}, "debug")
    assert chosen["VLLM_LOGGING_LEVEL"] == "ERROR", "what the user has set stays"


@ray.remote(num_cpus=0)
class Shows:
    """An actor that tells what it sees."""

    async def see(self, *names: str) -> list[str | None]:
        sys.stdout.write("printed in the actor\n")
        logging.getLogger("a_library").info("told by a library")
        return [os.environ.get(name) for name in names]

    async def niceness(self) -> int:
        return os.nice(0)


@pytest.fixture(scope="module")
def two_gpus() -> Any:
    """A Ray that counts two GPUs which are not there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        ray.init(address="local", include_dashboard=False, log_to_driver=False, num_cpus=2, num_gpus=2)
        yield
        ray.shutdown()


@pytest.mark.parametrize(("gpus", "seen"), [(0, ""), (1, "one"), (2, "both")])
def test_an_actor_sees_the_gpus_that_it_asked_for_and_no_other(
    gpus: int, seen: str, two_gpus: None, tmp_path: Path
) -> None:
    placement = Placement((Bundle("memory", 1, gpus),))
    env = actor_environment({}, {"MY_VARIABLE": "mine"}, "info")
    site = PlacementOptions(placement, env=env, logs=tmp_path)
    actor = actor_with(Shows, 3, site.core_options("memory")).remote()
    names = ("CUDA_VISIBLE_DEVICES", "MY_VARIABLE", "OMP_NUM_THREADS")
    ray.get(actor.see.remote(), timeout=60)
    visible, variable, threads = ray.get(actor.see.remote(*names), timeout=60)
    niceness = ray.get(actor.niceness.remote(), timeout=60)
    ray.kill(actor)
    assert niceness == os.nice(0), "also under a Ray that gives its processes 15 more, as this one"
    assert {"": "", "0": "one", "1": "one", "0,1": "both"}[visible] == seen
    assert (variable, threads) == ("mine", "3")
    log = (tmp_path / "memory.log").read_text()
    assert "printed in the actor" in log
    assert "INFO a_library: told by a library" in log
