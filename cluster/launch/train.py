"""One run from configuration to summary, in one process: what the supervisor starts.

    prepare -> Ray and the processes -> Controller.run -> checkpoint -> summary

Ctrl-C (or SIGTERM, SIGUSR1) asks the controller to stop after the update under way; the checkpoint is written and the
exit code is 130. Before there is a controller it ends the process at once: there is nothing to lose yet.
"""

import asyncio
import functools
import os
import time
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from cluster.config.run_config import RunConfig
from cluster.flow.controller import Controller
from cluster.flow.drive import drive
from cluster.flow.stages import RunInputs
from cluster.launch.background import background_tasks
from cluster.launch.core_services import CoreServices, start_services
from cluster.launch.nodes import refuse_uncounted_cards
from cluster.launch.placement import Placement, place
from cluster.launch.prepare import Prepared, prepare
from cluster.launch.process_env import actor_environment
from cluster.launch.ray_handles import PlacementOptions
from cluster.launch.ray_session import Session, ray_session, share
from cluster.launch.startup_log import StartupLog
from cluster.launch.stop_signals import StopSignals
from cluster.record.adapter_registry import AdapterRegistry
from cluster.record.checkpoint import log_floor
from cluster.record.events.resuming import LogCutShort, TornLogCut
from cluster.record.history import History
from cluster.record.recorder import Recorder
from cluster.record.run_dir import write_summary
from cluster.record.run_lock import keep_lock, lock_run
from cluster.record.run_log import RunLog
from cluster.record.run_processes import RunProcesses
from cluster.recovery.run_process import ended_by, ignore_signals
from cluster.watch.alarms.watcher import AlarmWatcher
from cluster.watch.resources.monitor import ResourceMonitor
from cluster.watch.watchers import watchers
from contracts.errors import ConfigError
from loading.device import cards

HEARTBEAT_S = 1.0


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
    """A run directory that is there already is resumed where it stood. address: of a Ray cluster to join; None starts
    one on this machine. override: go on although settings changed. supervisor: process number of who watches. lock:
    descriptor of the run's lock, held by who watches; None takes it.

    Raises MemrError with a message for the user; the run directory keeps whatever was written."""
    with lock_run(config.run_path) if lock is None else nullcontext():
        if lock is not None:
            keep_lock(config.run_path, lock)
        started, say = time.monotonic(), StartupLog(console)
        prepared = prepare(config, address, say, override=override, supervisor=supervisor)
        say("starting the processes: rollout workers, memory, learner")
        with ray_session(config, address, ship_code=ship_code) as session:
            site = _site(prepared, session, say)
            outcome = asyncio.run(_run(prepared, console, site))
            ignore_signals()
        outcome = replace(outcome, wall_s=time.monotonic() - started)
        _summarise(outcome)
        return outcome


def _site(prepared: Prepared, session: Session, say: StartupLog) -> PlacementOptions:
    """Raises ConfigError where the nodes have no room for every process."""
    config = prepared.config
    if session.owned:
        refuse_uncounted_cards(config, session.nodes, cards())
    placement = _placed(config, session, say)
    level = config.cluster.log_level
    return PlacementOptions(
        placement,
        one_machine=len(session.nodes) == 1,
        core_node_id=_core_node(config, session),
        env=actor_environment(os.environ, config.cluster.env, level),
        logs=prepared.logs,
        log_level=level,
        nodes=session.nodes_now,
    )


def _placed(config: RunConfig, session: Session, say: StartupLog) -> Placement:
    placement = place(config, session.nodes)
    if placement.shortages:
        raise ConfigError("; ".join(placement.shortages))
    for note in placement.notes:
        say(f"note: {note}")
    return placement


def _core_node(config: RunConfig, session: Session) -> str | None:
    """Learner and memory write into the run directory: they stay with us unless every node sees it."""
    return None if session.owned or config.cluster.shared_run_directory else session.driver_node_id


def _summarise(outcome: Outcome) -> None:
    summary = {"exit_code": outcome.exit_code, "updates": outcome.updates, "wall_s": outcome.wall_s}
    write_summary(outcome.run_path, summary | {"memory_episodes": outcome.episodes, "ended_by": ended_by()})


async def _run(prepared: Prepared, console: Console, site: PlacementOptions) -> Outcome:
    config, past = prepared.config, prepared.past
    run_path = config.run_path
    stop = StopSignals()
    recorder = Recorder(run_path)
    for watcher in watchers(config, run_path, console, site.logs, recorder.event):
        recorder.add_watcher(watcher)
    log = RunLog(run_path / "log", floor=log_floor(run_path))
    history = History(log)
    core = CoreServices(config, prepared.inputs, site, RunProcesses(run_path))
    core.processes.add_own_ray()
    ends = ExitStack()  # last in, first out: whatever a full disk lets fail, the processes are ended
    for end in (core.end_all, history.close, recorder.close):
        ends.callback(end)
    try:
        _report_log_losses(log, recorder)
        services = await start_services(core, config, prepared.inputs, recorder)
        registry = AdapterRegistry(run_path / "adapters", share, config.cluster.adapters_on_disk)
        controller = Controller(RunInputs(config, prepared.task, services, registry, recorder, history), past)
        stop.controller = controller
        written = recorder.lines
        alarms = AlarmWatcher(config.alarms, controller.health.apply, written.metrics.look(), written.evals.look())
        recorder.add_watcher(alarms)
        keeper = ResourceMonitor(
            config, core.processes, recorder, controller.health.halt, episodes=lambda: controller.episodes
        )
        async with background_tasks(signs_of_life(controller, recorder), keeper.run()):
            check = functools.partial(keeper.check_capacity, local_ray=site.one_machine)
            await drive(controller, recorder, check, prepared.begin_life)
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
        recorder.event(TornLogCut(log.torn_bytes))
    if log.ended_at is not None:
        headline = (
            f"the log ends at byte {log.ended_at.offset} of segment {log.ended_at.segment}, before the place that a "
            "checkpoint points to: the disk lost what it had confirmed. The run goes on from the checkpoint, in a new "
            "segment; `memr replay` cannot go past the gap"
        )
        recorder.event(LogCutShort(headline))


async def signs_of_life(controller: Controller, recorder: Recorder) -> None:
    """`status.json` once a second, while checkpoints are written too: what the supervisor and `memr status` read."""
    try:
        while True:
            recorder.status(controller.status() | {"pid": os.getpid()})
            await asyncio.sleep(HEARTBEAT_S)
    finally:
        recorder.status(controller.status() | {"pid": os.getpid(), "over": True})
