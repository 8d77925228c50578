"""The supervisor: a small process outside Ray that starts a run, watches that it moves, and resumes it.

    start the run's process -> it ends ----------------------------+-> done (0), stopped on request (130)
        ^         |                                                +-> wrong configuration (2), failed for good (3)
        |         +-> it hangs: stacks of every process,           |
        |             a checkpoint if it still answers, the end ---+-> killed, crashed, hung:
        +---- pause, twice as long each time --- failure_policy <--+       within the budget again, else exit code 3

It holds no state of the run, imports neither torch nor Ray, and whatever it does is what `memr resume` does. Should the
supervisor itself die, the run writes a checkpoint and ends (`run_process.py`).
"""

import json
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from cluster.config.notify import Notice
from cluster.config.run_folder import is_run, way_on
from cluster.config.supervision import SupervisionSettings
from cluster.record.events.event import Event
from cluster.record.events.failures import EndedByForce, GaveUp, ProcessLeft, RayDied, Restarted, RunDied, Stuck
from cluster.record.incidents import FINAL, append_event, headlines, kinds, write_incident
from cluster.record.requests import leave_request
from cluster.record.run_processes import oom_kills, recorded_processes
from cluster.recovery.ending import ENDS, FAILED, INTERRUPTED, MAY_RESTART, Ending, ending_of
from cluster.recovery.failure_policy import Budget, Component, Failure, RestartAction, decide
from cluster.recovery.process_tree import ProcessTree
from cluster.recovery.progress import Hang, ProgressWatch
from cluster.recovery.stderr_tail import StderrTail

POLL_S = 0.1
LOOK_EVERY = 10
"""Polls between two looks at the process tree and the status file."""
WITHOUT_RAY_S = 3.0
"""A run's process that ends by itself ends Ray first, and has this long to follow."""


class Supervisor:
    """command: of the run's process. say: to the person at the terminal. tell: hooks, told of start, restart and stop.
    lock: descriptor of the run's lock (`run_lock.py`), which every process that is started inherits. failed_notices: those
    that hooks did not take, since the last call."""

    def __init__(
        self,
        command: Sequence[str],
        run_path: Path,
        settings: SupervisionSettings,
        say: Callable[[str], None],
        tell: Callable[[dict[str, Any]], None] = lambda _event: None,
        lock: int | None = None,
        failed_notices: Callable[[], Sequence[Event]] = tuple,
    ) -> None:
        self._command, self._run_path, self._settings = command, run_path, settings
        self._hand_on = () if lock is None else (lock,)
        self._say, self._tell, self._failed_notices, self._clock = say, tell, failed_notices, time.monotonic
        self._failures: list[Failure] = []
        self._child: subprocess.Popen[bytes] | None = None
        self._asked: list[int] = []  # signals that asked for an end
        self._asked_s, self._incidents_before = 0.0, 0  # the latter: this life of the run's process

    def run(self) -> int:
        """The exit code of the run."""
        before = {number: signal.signal(number, self._on_signal) for number in _SIGNALS}
        try:
            self._tell({"event": Notice.START, "run": str(self._run_path)})
            code = self._until_done()
            if code == INTERRUPTED and not (self._run_path / "summary.json").exists():
                self._say(way_on(self._run_path))
            said = ENDS.get(code) or self._last_headline()  # an incident is the cause only of a failure
            stopped = {"event": Notice.STOP, "run": str(self._run_path), "exit_code": code}
            self._tell(stopped | ({"headline": said} if said else {}))
            return code
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _until_done(self) -> int:
        while not self._asked:
            ending = self._one_life()
            if self._asked:
                return self._asked_code(ending)
            if not ending.curable:
                return ending.code
            now = self._clock()
            self._failures.append(Failure(Component.RUN, now))
            budget = Budget(self._settings.run_restarts, self._settings.run_restart_window_s)
            verdict = decide(self._failures, budget, now)
            headline = ending.headline or self._last_headline() or f"it ended with code {ending.code}"
            if verdict.decision is RestartAction.STOP:
                self._give_up(headline, verdict.spent)
                return FAILED
            self._event(Restarted(headline, verdict.spent, verdict.after_s))
            self._say(
                f"{headline}. Resuming the run in {verdict.after_s:.0f} s "
                f"({verdict.spent} of {budget.restarts} restarts within {budget.window_s / 60:.0f} min)"
            )
            self._tell({"event": Notice.RESTART, "run": str(self._run_path), "headline": headline})
            self._pause(verdict.after_s)
        return INTERRUPTED

    def _one_life(self) -> Ending:
        """Starts the run's process, watches it until it is gone, and leaves nothing of it behind."""
        kills, self._incidents_before = oom_kills(), len(headlines(self._run_path))
        words = StderrTail(self._run_path)
        self._child = subprocess.Popen(
            self._command, start_new_session=True, pass_fds=self._hand_on, stderr=words.descriptor
        )
        tree = ProcessTree(self._child.pid)
        hang = self._watch(tree, words)
        if hang is not None:
            ending = Ending(MAY_RESTART, self._end_hung(tree, hang, self._incidents_before), forced=True)
        elif self._child.poll() is None:
            ending = Ending(INTERRUPTED, self._end_by_force(tree), forced=True)
        else:
            ending = self._how_it_ended(self._child.returncode, tree, oom_kills() > kills)
        for left in tree.end():
            self._event(ProcessLeft(left.pid, left.name))
        self._child.wait(timeout=10)
        words.close()
        return ending

    def _watch(self, tree: ProcessTree, words: StderrTail) -> Hang | None:
        """Until the process is gone, hangs (what is returned), or was asked to end and does not."""
        assert self._child is not None
        watch, kinds_before = ProgressWatch(self._settings, self._clock()), len(kinds(self._run_path))
        ray_seen_s, handed_on, polls = self._clock(), False, 0
        while self._child.poll() is None:
            self._pause(POLL_S)
            words.show()
            if self._asked and not handed_on:  # here, not in the handler: the signal may come while the process starts
                self._child.send_signal(signal.SIGINT)
                handed_on = True
            if self._asked and self._overdue():
                return None
            if polls % LOOK_EVERY == 0:
                tree.look()
                if is_run(self._run_path):
                    self.report_failed_notices()
                if hang := watch.look(self._status(), self._clock()):
                    return hang
            lost_ray = tree.lost_ray()
            if lost_ray is None or self._at_its_end(kinds_before):  # Ray goes first
                ray_seen_s = self._clock()
            elif not self._asked and self._clock() - ray_seen_s > WITHOUT_RAY_S:
                return Hang(f"{lost_ray} died", alive=False)  # nothing can be started any more: end it now
            polls += 1
        return None

    def _at_its_end(self, kinds_before: int) -> bool:
        """The process has said that the run is over, or why it cannot go on."""
        said_why = not FINAL.isdisjoint(kinds(self._run_path)[kinds_before:])
        return said_why or bool((self._status() or {}).get("over"))

    def _how_it_ended(self, code: int, tree: ProcessTree, out_of_memory: bool) -> Ending:
        """What the exit code means; an incident where the process could not say it itself."""
        asked_early = bool(self._asked) and (code == -signal.SIGINT or (code == 1 and self._status() is None))
        had_ray = any(member.name == "raylet" for member in tree.members)
        ending = ending_of(code, had_ray=had_ray, out_of_memory=out_of_memory, asked_early=asked_early)
        if ending.headline:
            self._incident(RunDied(ending.headline, code))
        return ending

    # -- a run that does not move --------------------------------------------------------------------------

    def _end_hung(self, tree: ProcessTree, hang: Hang, told: int) -> str:
        """Stacks first, then a checkpoint if the controller can still be asked, then the end by force. told: incidents
        before this life."""
        tree.look()
        lost_ray = tree.lost_ray()
        headline = hang.headline if lost_ray else f"{hang.headline}: {self._culprit(tree)}"
        if headline in headlines(self._run_path)[told:]:
            tree.end()
            return headline  # its own process knew, and did not get to its end
        path = self._incident(RayDied(headline) if lost_ray else Stuck(headline))
        if path is not None:
            tree.write_stacks(path.with_name(f"{path.stem}-stacks.txt"))
        request = leave_request(self._run_path, ask="stop") if hang.alive else None
        if request is not None:
            self._wait_for_end(self._settings.stop_s)
        tree.end()
        if request is not None:
            request.unlink(missing_ok=True)  # it was meant for this life, not for the next
        return headline

    def _culprit(self, tree: ProcessTree) -> str:
        """Who cannot have answered: a stopped or dead process by the name that the run knows it under."""
        stopped = {member.pid for member in tree.stopped()}
        names = {entry.process.pid: name for name, entry in recorded_processes(self._run_path).items()}
        assert self._child is not None
        names[self._child.pid] = "the controller"
        found = [f"{names.get(pid, 'a process of the run')} (process {pid}) is stopped" for pid in sorted(stopped)]
        gone = [
            f"{name} (process {entry.process.pid}) is gone"
            for name, entry in recorded_processes(self._run_path).items()
            if entry.process.here and not entry.alive
        ]
        return "; ".join(found + gone) or "every process is there; the stacks beside this file show what each is doing"

    def _wait_for_end(self, within_s: float) -> None:
        assert self._child is not None
        try:
            self._child.wait(timeout=within_s)
        except subprocess.TimeoutExpired:
            return

    # -- asked to end --------------------------------------------------------------------------------------

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        """The first asks for a checkpoint and the end, a second ends at once; `_one_life` sees to both."""
        if not self._asked:
            self._asked_s = self._clock()
        self._asked.append(number)

    def _asked_code(self, ending: Ending) -> int:
        """A run that finished or failed for good says so, whoever asked it to end meanwhile; one that crashed before it
        could act on that is not started again for it."""
        if not ending.curable:
            return ending.code
        if ending.forced or self._status() is None:  # before its first sign of life there is nothing to lose
            return INTERRUPTED
        headline = ending.headline or self._last_headline() or f"it ended with code {ending.code}"
        self._say(f"{headline}, before it could write a checkpoint and end; `memr resume {self._run_path}` goes on")
        return 3

    def _overdue(self) -> bool:
        return len(self._asked) > 1 or self._clock() - self._asked_s > self._settings.stop_s

    def _end_by_force(self, tree: ProcessTree) -> str:
        why = "asked twice" if len(self._asked) > 1 else f"no end within {self._settings.stop_s:g} s"
        headline = (
            f"ended by force: {why}. No checkpoint was written now; the log has every rollout and `memr resume` goes on"
        )
        self._say(headline)
        self._event(EndedByForce(headline))
        tree.end()
        return headline

    # -- telling -------------------------------------------------------------------------------------------

    def _status(self) -> dict[str, Any] | None:
        """status.json, if the process of this life wrote it."""
        try:
            status: dict[str, Any] = json.loads((self._run_path / "status.json").read_text())
        except (OSError, ValueError):
            return None
        assert self._child is not None
        return status if status.get("pid") == self._child.pid else None

    def _incident(self, event: Event) -> Path | None:
        """None where it could not be written: a full disk must not end the supervisor too."""
        try:
            path = write_incident(self._run_path, event.at(time.time()))
        except OSError as error:
            self._say(f"{event.headline} (and it could not be written down: {error})")
            return None
        self._event(event)
        return path

    def _event(self, event: Event) -> None:
        if not self._run_path.exists():
            return
        try:
            append_event(self._run_path, event.at(time.time()))
        except OSError as error:
            self._say(f"events.jsonl cannot be written: {error}")

    def report_failed_notices(self) -> None:
        """To the person, and among the events of the run where there is one."""
        for event in self._failed_notices():
            self._say(event.headline)
            if is_run(self._run_path):
                self._event(event)

    def _last_headline(self) -> str:
        """Of the incidents since the run's process was last started; empty without one."""
        return next(reversed(headlines(self._run_path)[self._incidents_before :]), "")

    def _give_up(self, headline: str, times: int) -> None:
        spent = f"that was failure {times} of the run, and its budget of restarts is spent"
        self._incident(GaveUp(f"{headline}; {spent}"))
        path, settings = self._run_path, self._settings
        way_on = f"; `memr resume {path}` goes on from where it stood" if is_run(path) else ""
        self._say(
            f"{headline}. That was failure {times} of the run within {settings.run_restart_window_s / 60:.0f} min, supervision."
            f"run_restarts is {settings.run_restarts}: giving up. {path / 'incidents'} has what happened{way_on}"
        )

    def _pause(self, seconds: float) -> None:
        """Short sleeps: a signal's handler runs between them."""
        until = self._clock() + seconds
        while not (self._asked and seconds > POLL_S) and (left := until - self._clock()) > 0:
            time.sleep(min(POLL_S, left))


_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
