"""A start that is refused: told before Ray is ended, never tried again where nothing can change, and may be mended."""

import asyncio
import errno
import json
import os
import platform
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, RayTaskError
from rich.console import Console

from actors.engines.scripted.char_tokenizer import CharTokenizer
from cluster.commands.summary import state_of
from cluster.config.run_config import RunConfig
from cluster.config.supervision import SupervisionSettings
from cluster.launch.core_services import CoreServices, refusal, start_services
from cluster.launch.ray_handles import answer
from cluster.launch.train import train
from cluster.record.events.event import Event
from cluster.record.events.failures import PartLost, Stopped, SupervisorDied
from cluster.record.incidents import headlines, kinds, write_incident
from cluster.record.recorder import Recorder
from cluster.record.resume import begin_or_go_on, refuse_other_prompts
from cluster.record.run_dir import claim_run, create_run, has_begun, owner_alive, renew_run
from cluster.record.run_processes import RunProcesses, oom_kills
from cluster.record.run_view import read_run
from cluster.recovery.ending import FAILED, MAY_RESTART
from cluster.recovery.failure_policy import Component
from cluster.recovery.restartable import RestartableLearner
from cluster.recovery.run_process import end_when_orphaned, ended_by, supervised
from cluster.recovery.supervisor import Supervisor
from contracts.errors import ActorLostError, ConfigError, LoadError, MemrError, RunStopped
from contracts.process import ProcessId, own_process
from tasks.config import TaskSettings
from tasks.prompts import HfTokenizer
from tests.fakes import FakeLearner
from tests.harness import make_config
from tests.unit.cluster.test_restartable import care
from tests.unit.cluster.test_supervisor import supervise
from tests.unit.tasks.test_tasks_chat_template import DATED
from tests.unit.tasks.test_tasks_prompts import EOS, TEMPLATE, byte_tokenizer

# -- processes ---------------------------------------------------------------------------------------------


async def failing(error: Exception) -> None:
    raise error


async def test_a_process_whose_code_cannot_be_imported_is_told_by_the_last_line_and_not_started_again() -> None:
    trace = "ray::Learner.__init__ (pid=1)\nTraceback\n  File x\nModuleNotFoundError: No module named 'peft'"
    cause = RayTaskError("f", trace, ImportError())  # type: ignore[no-untyped-call]
    with pytest.raises(
        LoadError, match=r"learner cannot start on its node: ModuleNotFoundError: No module named 'peft'$"
    ):
        await answer("the learner", failing(ActorDiedError(cause)))
    with pytest.raises(ActorLostError, match="died"):
        await answer("the learner", failing(ActorDiedError()))


@pytest.mark.parametrize(
    ("error", "begun", "becomes"),
    [
        (LoadError("no peft"), False, LoadError),
        (LoadError("no peft"), True, ActorLostError),
        (LoadError("cannot load m: AcceleratorError: CUDA error: device busy"), True, ActorLostError),
        (LoadError("cannot load m: OSError: [Errno 116] Stale file handle"), True, ActorLostError),
        (LoadError("CUDA out of memory"), False, LoadError),
        (LoadError("CUDA out of memory"), True, ActorLostError),
        (ActorLostError("gone; the kernel killed a process because memory ran out"), False, LoadError),
        (ActorLostError("gone; the kernel killed a process because memory ran out"), True, ActorLostError),
        (ActorLostError("gone"), False, ActorLostError),
    ],
)
def test_what_does_not_load_ends_a_start_and_is_tried_again_later(
    error: MemrError, begun: bool, becomes: type[MemrError]
) -> None:
    found = refusal(error, begun=begun)
    assert type(found) is becomes
    assert str(error) in str(found)


class Call:
    """A method of an actor."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self.work = work

    async def remote(self) -> Any:
        return self.work()


@dataclass(frozen=True)
class LoadingActor:
    process: Call
    start: Call


def core_of(config: RunConfig) -> CoreServices:
    nothing: Any = None
    config.run_path.mkdir(parents=True, exist_ok=True)
    return CoreServices(config, nothing, nothing, RunProcesses(config.run_path))


async def test_a_part_that_dies_while_it_loads_is_told_by_its_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    living: list[subprocess.Popen[bytes]] = []

    def is_born() -> ProcessId:
        living.append(subprocess.Popen(["sleep", "60"]))
        return ProcessId(platform.node(), living[-1].pid)

    def dies() -> None:
        living[-1].kill()
        living[-1].wait(timeout=10)
        raise ActorDiedError

    actor = LoadingActor(Call(is_born), Call(dies))
    config = make_config(tmp_path)
    with pytest.raises(ActorLostError, match=r"^the memory died while it loaded: process \d+ is gone$"):
        await core_of(config)._loaded("memory", actor)
    core, kills = core_of(config), oom_kills()
    monkeypatch.setattr("cluster.record.run_processes.oom_kills", lambda: kills + 1)
    with pytest.raises(LoadError, match=r"the memory died while it loaded.*memory ran out\. Choose a smaller model"):
        await core._loaded("memory", actor)
    (config.run_path / "checkpoints" / "step-000000").mkdir(parents=True)
    core = core_of(config)
    monkeypatch.setattr("cluster.record.run_processes.oom_kills", lambda: kills + 2)
    with pytest.raises(ActorLostError, match="memory ran out$"):
        await core._loaded("memory", actor)


async def test_a_part_loads_in_a_call_whose_error_is_its_own(tmp_path: Path) -> None:
    refused = LoadError("memory.encoder = 'x' cannot be loaded")
    actor = LoadingActor(Call(own_process), Call(raising(refused)))
    core = core_of(make_config(tmp_path))
    with pytest.raises(LoadError, match="^memory.encoder = 'x' cannot be loaded$"):
        await core._loaded("memory", actor)
    assert core.processes.here == {"memory": own_process().pid}, "known before it loads"
    loads = LoadingActor(Call(own_process), Call(lambda: None))
    assert await core._loaded("memory", loads) is loads


class _Parts(CoreServices):
    """Whose learner cannot be had, and whose memory loads forever."""

    def __init__(self, error: MemrError) -> None:
        self._error = error

    async def start_learner(self) -> Any:
        raise self._error

    async def start_memory(self) -> Any:
        await asyncio.sleep(3600)


@pytest.mark.parametrize(
    ("error", "kind"), [(LoadError("no peft here"), Stopped), (ActorLostError("the learner died"), PartLost)]
)
async def test_why_a_part_did_not_start_is_on_disk_before_ray_is_ended(
    tmp_path: Path, error: MemrError, kind: type[Event]
) -> None:
    config = make_config(tmp_path)
    inputs: Any = None
    with closing(Recorder(config.run_path)) as recorder, pytest.raises(type(error)):
        await start_services(_Parts(error), config, inputs, recorder)
    assert kinds(config.run_path) == [kind]


class Dies(FakeLearner):
    async def first_adapter(self) -> Any:
        raise ActorLostError("died")


async def test_a_part_that_cannot_be_loaded_for_a_moment_is_brought_back(tmp_path: Path) -> None:
    config, lost = make_config(tmp_path), [LoadError("cannot load m: OSError: [Errno 116] Stale file handle")]

    def start() -> Any:
        if lost:
            raise lost.pop()
        return FakeLearner(0)

    with closing(Recorder(config.run_path)) as recorder:
        revived = RestartableLearner(Dies(0), care(config, recorder, Component.LEARNER, start))
        assert (await revived.first_adapter()).manifest.policy_version == 0
    told = headlines(config.run_path)
    assert ["process died" in told[0], "did not load again: cannot load m: OSError" in told[1]] == [True, True]


async def test_a_part_that_never_loads_again_ends_with_the_budget_and_says_why(tmp_path: Path) -> None:
    config, tried = make_config(tmp_path), []

    def gone() -> Any:
        tried.append(1)
        raise LoadError("cannot load the model m: OSError: no such folder")

    with closing(Recorder(config.run_path)) as recorder:
        revived = RestartableLearner(Dies(0), care(config, recorder, Component.LEARNER, gone, restarts=3))
        with pytest.raises(ActorLostError, match=r"did not load again: .*no such folder; that was 4 times"):
            await revived.first_adapter()
    assert len(tried) == 3


async def test_a_run_that_has_begun_tries_again_what_does_not_load(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    actor = LoadingActor(Call(own_process), Call(raising(LoadError("cannot load m: CUDA error: device busy"))))
    with pytest.raises(LoadError, match="device busy"):
        await core_of(config)._loaded("memory", actor)
    (config.run_path / "checkpoints" / "step-000000").mkdir(parents=True)
    with pytest.raises(ActorLostError, match="device busy"):
        await core_of(config)._loaded("memory", actor)
    refused = LoadingActor(Call(own_process), Call(raising(ConfigError("no such device"))))
    with pytest.raises(ConfigError, match="no such device"):
        await core_of(config)._loaded("memory", refused)


# -- the run's own process and its supervisor --------------------------------------------------------------


@pytest.fixture
def restored_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`supervised` takes the process that it is called in for its own."""
    monkeypatch.setattr("cluster.recovery.run_process.faulthandler.enable", lambda: None)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def raising(error: Exception) -> Callable[[], int]:
    def life() -> int:
        raise error

    return life


@pytest.mark.usefixtures("restored_process")
def test_an_error_before_there_is_a_run_is_not_tried_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert supervised(raising(ZeroDivisionError("ours")), tmp_path / "run", 1.0, os.getppid()) == FAILED
    assert "ZeroDivisionError: ours" in capsys.readouterr().err
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "manifest.json").write_text("{}")
    assert supervised(raising(ZeroDivisionError("ours")), tmp_path / "run", 1.0, os.getppid()) == MAY_RESTART


@pytest.mark.usefixtures("restored_process")
def test_a_full_disk_is_written_down_where_a_line_still_finds_room(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(RunStopped, match="Make room, then `memr resume"):
        supervised(raising(full), tmp_path, 1.0, os.getppid())
    assert kinds(tmp_path) == [Stopped]


@pytest.mark.usefixtures("restored_process")
def test_a_missing_package_is_not_tried_again(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="No module named 'tensorboard'"):
        supervised(raising(ModuleNotFoundError("No module named 'tensorboard'")), tmp_path, 1.0, os.getppid())


@pytest.mark.usefixtures("restored_process")
def test_a_loss_that_was_told_is_not_told_twice(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    write_incident(tmp_path, PartLost("the learner died"))  # of an earlier life

    def life() -> int:
        write_incident(tmp_path, PartLost("the learner died"))
        raise ActorLostError("the learner died")

    assert supervised(life, tmp_path, 1.0, os.getppid()) == MAY_RESTART
    assert kinds(tmp_path) == [PartLost] * 2
    assert supervised(raising(ActorLostError("the learner died")), tmp_path, 1.0, os.getppid()) == MAY_RESTART
    assert kinds(tmp_path) == [PartLost] * 3


LOSES_RAY = """
import shutil
shutil.copy(shutil.which("sleep"), "{run}/gcs_server")
ray = subprocess.Popen(["{run}/gcs_server", "60"])
time.sleep(4)
{told}
ray.kill()
ray.wait()
time.sleep(6)
sys.exit(2)
"""
TELLS = """pathlib.Path("{run}/incidents/0001-{kind}.json").write_text('{{"headline": "no such encoder"}}')"""


@pytest.mark.parametrize("kind", ["stopped", "part_lost"])
def test_ray_that_ends_with_a_run_that_has_told_why_is_not_the_cause(tmp_path: Path, kind: str) -> None:
    run = tmp_path / "r"
    (run / "incidents").mkdir(parents=True)
    code, told = supervise(run, LOSES_RAY.format(run=run, told=TELLS.format(run=run, kind=kind)))
    assert code == 2
    assert [event["event"] for event in told] == ["start", "stop"]


def test_ray_that_ends_without_a_word_is_the_cause(tmp_path: Path) -> None:
    run = tmp_path / "r"
    code, told = supervise(run, LOSES_RAY.format(run=run, told=""), run_restarts=0)
    assert code == 3
    assert "gcs_server" in told[-1]["headline"]


# -- mended and started again ------------------------------------------------------------------------------


def test_a_run_that_never_began_may_be_started_with_other_settings(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    path = create_run(config, {"template_hash": "a"})
    assert not has_begun(path)
    changed = make_config(tmp_path, lag=2)
    renew_run(changed, {"template_hash": "b"})
    assert json.loads((path / "manifest.json").read_text())["template_hash"] == "b"
    assert "max_policy_lag = 2" in (path / "config.toml").read_text()
    (path / "log" / "000000").write_bytes(b"frame")
    assert has_begun(path)


def tokenizer(template: str) -> HfTokenizer:
    return HfTokenizer(byte_tokenizer(template), frozenset({EOS}), "the test")


def test_a_run_of_an_earlier_commit_whose_prompts_were_others_is_sent_to_that_commit(tmp_path: Path) -> None:
    today = tokenizer(DATED)
    path = create_run(make_config(tmp_path), {"template_hash": today.plain_fingerprint, "git_commit": "57c9e8c"})
    with pytest.raises(ConfigError, match=r"begun by commit 57c9e8c .*writes the date.*run\.name=NAME"):
        refuse_other_prompts(path, today)


def test_a_run_whose_prompts_are_what_they_were_goes_on(tmp_path: Path) -> None:
    plain, today = tokenizer(TEMPLATE), tokenizer(DATED)
    path = create_run(make_config(tmp_path), {"template_hash": plain.plain_fingerprint})
    refuse_other_prompts(path, plain)
    renew_run(make_config(tmp_path), {"template_hash": today.fingerprint})
    refuse_other_prompts(path, today)
    refuse_other_prompts(path, CharTokenizer("abc"))


@pytest.mark.parametrize("is_run", [False, True])
def test_who_gives_up_names_a_resume_only_where_there_is_a_run(tmp_path: Path, is_run: bool) -> None:
    if is_run:
        (tmp_path / "manifest.json").write_text("{}")
    said: list[str] = []
    settings = SupervisionSettings(run_restarts=0)
    supervisor = Supervisor([sys.executable, "-c", "import sys; sys.exit(1)"], tmp_path, settings, said.append)
    assert supervisor.run() == FAILED
    assert ("memr resume" in said[-1]) is is_run


def test_an_orphan_says_who_died_before_it_asks_itself_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its supervisor was killed: what it writes down is not a request."""
    path = create_run(make_config(tmp_path), {})
    orphaned = threading.Event()
    told_then: list[tuple[int, list[str], str]] = []

    def kill(_pid: int, number: int) -> None:
        told_then.append((number, headlines(path), ended_by()))
        raise KeyboardInterrupt  # the signal ends what follows here

    monkeypatch.setattr("cluster.recovery.run_process._orphaned", orphaned)
    monkeypatch.setattr("cluster.recovery.run_process.os.kill", kill)
    assert ended_by() == ""
    with pytest.raises(KeyboardInterrupt):
        end_when_orphaned(-1, path, 0.0)
    [(number, said, by)] = told_then
    assert (number, by) == (signal.SIGTERM, SupervisorDied.written_as)
    assert "the supervisor of the run (process -1" in said[0]
    assert f"`memr resume {path}` goes on" in said[0]
    assert state_of(read_run(path)).startswith("failed: the supervisor of the run"), "where no summary follows"


def test_an_orphan_whose_supervisor_died_before_it_looked_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while this process was loading: the parent is process 1 by then, and stays."""
    ended = threading.Event()

    def watched(parent: int, *_: object) -> None:
        if parent == 77:
            ended.set()

    monkeypatch.setattr("cluster.recovery.run_process.end_when_orphaned", watched)
    assert supervised(lambda: 0 if ended.wait(5) else 1, tmp_path, 1.0, supervisor=77) == 0


def test_a_run_whose_supervisor_died_before_it_was_claimed_is_not_at_work(tmp_path: Path) -> None:
    path = create_run(make_config(tmp_path), {})
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    claim_run(path, dead.pid)
    claim = json.loads((path / "process.json").read_text())
    claim["owners"].pop(str(os.getpid()))
    (path / "process.json").write_text(json.dumps(claim))
    assert not owner_alive(path)


def test_a_run_begins_is_mended_before_it_began_and_keeps_its_settings_afterwards(tmp_path: Path) -> None:
    first, mended = make_config(tmp_path), make_config(tmp_path, learner={"loss": "cispo"})
    characters, identity = CharTokenizer("abc"), {"template_hash": "t", "task_hash": "d"}
    path = first.run_path
    assert begin_or_go_on(first, characters, identity, "model", override=False) == []
    assert begin_or_go_on(mended, characters, identity | {"task_hash": "e"}, "other", override=False) == []
    manifest = json.loads((path / "manifest.json").read_text())
    assert (manifest["task_hash"], manifest["model_path"]) == ("e", "other")
    (path / "log" / "000000").write_bytes(b"frame")
    with pytest.raises(ConfigError, match=r"learner\.loss: was 'cispo'"):
        begin_or_go_on(first, characters, identity | {"task_hash": "e"}, "other", override=False)
    more = make_config(tmp_path, updates=9, learner={"loss": "cispo"})
    [grown] = begin_or_go_on(more, characters, identity | {"task_hash": "e"}, "other", override=False)
    assert grown.name == "learner.num_updates"


@pytest.mark.parametrize(
    ("task", "says"),
    [
        ({"rewards": [{"name": "{}/mine.py:lenght"}]}, r"^task\.rewards = .*Did you mean 'length'\?"),
        ({"scorer": "{}/mine.py:scor"}, r"^task\.scorer = .*Did you mean 'score'\?"),
        ({"kind": "{}/mine.py:Wrld"}, r"^task\.kind = .*Did you mean 'World'\?"),
    ],
)
def test_misspelt_code_of_the_users_is_told_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: dict[str, Any], says: str
) -> None:
    """The rollout worker, which runs it, starts after the model was loaded."""
    (tmp_path / "mine.py").write_text("def length(inputs): ...\ndef score(answer, final): ...\nclass World: ...\n")

    def loads(*_: object) -> None:
        raise AssertionError("something was loaded")

    monkeypatch.setattr("cluster.launch.prepare.check_driver", loads)
    monkeypatch.setattr("cluster.launch.prepare.model_of", loads)
    given = json.loads(json.dumps(task).replace("{}", str(tmp_path)))
    config = make_config(tmp_path).model_copy(update={"task": TaskSettings.model_validate(given)})
    with pytest.raises(ConfigError, match=says):
        train(config, Console(), lock=None)
