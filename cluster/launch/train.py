"""One run from configuration to summary, in one process: what the supervisor starts.

    check the task and the prompts -> run directory -> Ray and the processes -> Controller.run -> checkpoint -> summary

Ctrl-C (or SIGTERM, SIGUSR1) asks the controller to stop after the update under way; the checkpoint is written and the
exit code is 130. Before there is a controller it ends the process at once: there is nothing to lose yet.
"""

import asyncio
import functools
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import ExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from actors.load import load_worker_tokenizer
from cluster.config.run_config import RunConfig
from cluster.flow.change_signal import cancelled
from cluster.flow.controller import Controller
from cluster.flow.drive import drive
from cluster.flow.stages import RunInputs
from cluster.launch.answer_rule_change import tell_changed_rule
from cluster.launch.context_room import find_room
from cluster.launch.core_services import CoreParts, start_parts
from cluster.launch.model_store import model_of
from cluster.launch.nodes import check_driver, refuse_uncounted_cards
from cluster.launch.placement import Placement, place
from cluster.launch.probes import probe_sequences
from cluster.launch.process_env import actor_environment
from cluster.launch.ray_handles import PartInputs, Site
from cluster.launch.ray_session import Session, ray_session, share
from cluster.record.adapter_registry import AdapterRegistry
from cluster.record.checkpoint import log_floor
from cluster.record.data_identity import data_identity
from cluster.record.history import History, Past
from cluster.record.older_reading import tell_reading
from cluster.record.process_log import CONTROLLER_LOG, log_to_file, new_attempt, newest_attempt
from cluster.record.recorder import Recorder
from cluster.record.resume import begin_or_go_on, read_run_past, record_changes
from cluster.record.run_dir import claim_run, forget_summary, has_begun, write_summary
from cluster.record.run_lock import keep_lock, lock_run
from cluster.record.run_log import RunLog
from cluster.record.run_processes import RunProcesses
from cluster.recovery.run_process import asked_to_end, ended_by, hear_no_more
from cluster.watch.alarms.watcher import AlarmWatcher
from cluster.watch.resources.keeper import ResourceKeeper
from cluster.watch.watchers import watchers
from contracts.device import cards
from contracts.errors import ConfigError, LoadError
from contracts.loading import named_data
from contracts.ports import Task
from tasks.load import load_task, make_verifier
from tasks.prompts import HfTokenizer
from tasks.task_data import look_through

HEARTBEAT_S = 1.0
MAX_FAULTS_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended. exit_code: 0 done, 130 stopped on request after a checkpoint. episodes: in memory then."""

    run_path: Path
    exit_code: int
    updates: int
    wall_s: float
    episodes: int = 0


def train(
    config: RunConfig,
    console: Console,
    address: str | None = None,
    *,
    ship_code: bool = False,
    override: bool = False,
    supervisor: int | None = None,
    lock: int | None = None,
) -> Outcome:
    """A run directory that is there already is taken up where it stood. address: of a Ray cluster to join; None starts
    one on this machine. override: go on although settings changed. supervisor: process number of who watches. lock:
    descriptor of the run's lock, held by who watches; None takes it.

    Raises MemrError with a message for the user; the run directory keeps whatever was written."""
    with lock_run(config.run_path) if lock is None else nullcontext():
        if lock is not None:
            keep_lock(config.run_path, lock)
        return _train(config, console, address, ship_code=ship_code, override=override, supervisor=supervisor)


def _train(
    config: RunConfig,
    console: Console,
    address: str | None,
    *,
    ship_code: bool,
    override: bool,
    supervisor: int | None,
) -> Outcome:
    started = time.monotonic()
    say = Narrator(console)
    task = load_task(config.task)  # first: a wrong path is told before anything is loaded
    if not has_begun(config.run_path):  # one that has loaded it before tries again, within its budget
        make_verifier(config.task).close()  # users' scorer and rewards, loaded as every worker will
    check_driver(config, address)
    say("loading the model's files and the tokenizer")
    model_path = model_of(config)
    tokenizer = load_worker_tokenizer(config.actors, model_path)
    for note in tokenizer.notes if isinstance(tokenizer, HfTokenizer) else ():
        say(note)
    run_path = config.run_path
    data = look_through(task, config.eval.problems)
    with named_data():
        prompts = data.check_prompts(tokenizer, config.task.max_prompt_tokens)
    room = find_room(config, tokenizer, model_path, prompts.max, say if has_begun(run_path) else None)
    inputs = PartInputs(model_path, tokenizer.fingerprint, probe_sequences(config, task, tokenizer), room)
    found = data_identity(run_path, task, data, config.task)
    identity = {"template_hash": inputs.template_hash, **found.hashes}
    if data.faults and not has_begun(run_path):
        raise LoadError("\n".join(data.faults[:MAX_FAULTS_SHOWN]))
    for told in (data.counts, *data.notes, *prompts.notes):
        say(told)
    changes = begin_or_go_on(config, tokenizer, identity, model_path, override=override, data=found)
    past = read_run_past(run_path, config) if has_begun(run_path) else Past()
    if past.begun:
        say(f"resuming {run_path} after update {past.step + len(past.batches)}")
        for told in (tell_changed_rule(run_path, config), tell_reading(run_path, found.reading)):
            if told:
                say(told)
    claim_run(run_path, supervisor)
    logs = newest_attempt(run_path) if supervisor else new_attempt(run_path)
    if logs is not None:
        log_to_file(logs / CONTROLLER_LOG, config.cluster.log_level)

    def begin_this_life() -> None:
        """Not before the run was taken up: an attempt that fails leaves settings and summary as they were."""
        record_changes(run_path, config, changes)
        forget_summary(run_path)

    say("starting the processes: rollout workers, memory, learner")
    with ray_session(config, address, ship_code=ship_code) as session:
        if session.owned:
            refuse_uncounted_cards(config, session.nodes, cards())
        placement = place(config, session.nodes)
        if placement.shortages:
            raise ConfigError("; ".join(placement.shortages))
        for note in placement.notes:
            say(f"note: {note}")
        site = _site(config, session, placement, logs)
        outcome = asyncio.run(_run(config, task, inputs, past, console, site, begin_this_life))
        hear_no_more()
    outcome = replace(outcome, wall_s=time.monotonic() - started)
    summary = {"exit_code": outcome.exit_code, "updates": outcome.updates, "wall_s": outcome.wall_s}
    write_summary(run_path, summary | {"memory_episodes": outcome.episodes, "ended_by": ended_by()})
    return outcome


def _site(config: RunConfig, session: Session, placement: Placement, logs: Path | None) -> Site:
    level = config.cluster.log_level
    return Site(
        placement,
        one_machine=len(session.nodes) == 1,
        core_node_id=_core_node(config, session),
        env=actor_environment(os.environ, config.cluster.env, level),
        logs=logs,
        log_level=level,
        nodes=session.nodes_now,
    )


def _core_node(config: RunConfig, session: Session) -> str | None:
    """Learner and memory write into the run directory: they stay with us unless every node sees it."""
    return None if session.owned or config.cluster.shared_run_directory else session.driver_node_id


class Narrator:
    """Says what happens while nothing moves yet."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = time.monotonic()

    def __call__(self, what: str) -> None:
        self._console.print(
            Text.assemble((f"{time.monotonic() - self._started:5.1f} s", "dim"), f"  {what}"), soft_wrap=True
        )


async def _run(
    config: RunConfig,
    task: Task,
    inputs: PartInputs,
    past: Past,
    console: Console,
    site: Site,
    on_taken_up: Callable[[], None],
) -> Outcome:
    run_path = config.run_path
    stop = StopSignals()
    recorder = Recorder(run_path, watchers(config, run_path, console, site.logs))
    log = RunLog(run_path / "log", floor=log_floor(run_path))
    history = History(log)
    core = CoreParts(config, inputs, site, RunProcesses(run_path))
    core.processes.add_own_ray()
    ends = ExitStack()  # last in, first out: whatever a full disk lets fail, the processes are ended
    for end in (core.end_all, history.close, recorder.close):
        ends.callback(end)
    try:
        _report_log_losses(log, recorder)
        parts = await start_parts(core, config, inputs, recorder)
        registry = AdapterRegistry(run_path / "adapters", share, config.cluster.adapters_on_disk)
        controller = Controller(RunInputs(config, task, parts, registry, recorder, history), past)
        stop.controller = controller
        alarms = AlarmWatcher(
            config.alarms, controller.health.obey, recorder.lines("metrics.jsonl"), recorder.lines("eval.jsonl")
        )
        recorder.add_watcher(alarms)
        keeper = ResourceKeeper(
            config, core.processes, recorder, controller.health.halt, episodes=lambda: controller.episodes
        )
        async with beside(signs_of_life(controller, recorder), keeper.run()):
            check = functools.partial(keeper.refuse_what_will_not_fit, local_ray=site.one_machine)
            await drive(controller, recorder, check, on_taken_up)
        return Outcome(run_path, 130 if controller.stopped_early else 0, controller.step, 0.0, controller.episodes)
    except asyncio.CancelledError:
        if not stop.seen:
            raise
        return Outcome(run_path, 130, past.step + len(past.batches), 0.0)
    finally:
        ends.close()


def _report_log_losses(log: RunLog, recorder: Recorder) -> None:
    """What the log had lost when it was opened: its torn tail, or frames below a checkpoint's place."""
    if log.torn_bytes:
        recorder.event("torn_log_cut", bytes=log.torn_bytes)
    if log.ended_at is not None:
        recorder.incident(
            "log_cut_short",
            f"the log ends at byte {log.ended_at.offset} of segment {log.ended_at.segment}, before the place that a "
            "checkpoint points to: the disk lost what it had confirmed. The run goes on from the checkpoint, in a new "
            "segment; `memr replay` cannot go past the gap",
        )


async def signs_of_life(controller: Controller, recorder: Recorder) -> None:
    """`status.json` once a second, while checkpoints are written too: what the supervisor and `memr status` read."""
    try:
        while True:
            recorder.status(controller.status() | {"pid": os.getpid()})
            await asyncio.sleep(HEARTBEAT_S)
    finally:
        recorder.status(controller.status() | {"pid": os.getpid(), "over": True})


@asynccontextmanager
async def beside(*loops: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Loops that run while the body does; an error of theirs is raised at its end, none of it is lost."""
    tasks = [asyncio.ensure_future(loop) for loop in loops]
    try:
        yield
    finally:
        failed = [task.exception() for task in tasks if task.done() and not task.cancelled()]
        await cancelled(tasks)
    for error in failed:
        if error is not None:
            raise error


class StopSignals:
    """SIGINT, SIGTERM and SIGUSR1 ask the controller to stop; until it has taken the run up they end the start, after which
    the run is what it was before."""

    def __init__(self) -> None:
        self.controller: Controller | None = None
        self.seen = False
        self._main = asyncio.current_task()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            loop.add_signal_handler(number, self._ask)
        if asked_to_end():
            self._ask()

    def _ask(self) -> None:
        self.seen = True
        if self.controller is not None and self.controller.restored:
            self.controller.stop()
        elif self._main is not None:
            self._main.cancel()
