"""How a command reaches a live run: a file in its directory, taken by the controller within a second.

`memr scale` and `memr stop` write runs/<name>/control/<time>.json; the controller reads, deletes, obeys, and answers
with an event, which the command waits for. No socket is open for this, and it works wherever the run directory can be written.
"""

import asyncio
import json
import time
from pathlib import Path
from typing import Any, Protocol

from cluster.record.events.event import Event
from cluster.record.events.resuming import RequestRefused
from cluster.record.recorder import Recorder
from cluster.record.run_dir import surely_over
from cluster.record.run_lines import Growing, RunLines
from cluster.record.run_lock import held
from contracts.errors import ConfigError, DataError

POLL_S = 0.5
ANSWER_WITHIN_S = 15.0


class LiveRun(Protocol):
    """What a live run can be asked for. `scale` raises ConfigError for a number or a pool that cannot be."""

    def scale(self, workers: int, pool: str | None) -> None: ...

    def stop(self) -> None: ...


class RunControl:
    """Takes the requests that commands leave in the run's folder."""

    def __init__(self, run_path: Path, recorder: Recorder, run: LiveRun) -> None:
        self._folder = run_path / "control"
        self._recorder, self._run = recorder, run

    async def run(self) -> None:
        """Consumes request files; produces calls; waits for nothing but the clock."""
        self._folder.mkdir(parents=True, exist_ok=True)
        while True:
            for file in sorted(self._folder.glob("*.json")):
                self._apply(file)
            await asyncio.sleep(POLL_S)

    def _apply(self, file: Path) -> None:
        try:
            request = json.loads(file.read_text())
            if request["ask"] == "scale":
                self._run.scale(int(request["workers"]), request.get("pool"))
            elif request["ask"] == "stop":
                self._run.stop()
            else:
                raise ConfigError(f"a run cannot be asked to '{request['ask']}'")
        except (OSError, ValueError, KeyError, TypeError, ConfigError) as error:
            self._recorder.event(RequestRefused(file.name, str(error)))
        finally:
            file.unlink(missing_ok=True)


def leave_request(run_path: Path, **request: Any) -> Path:
    """For the controller to find; returns the file, which is gone once it was taken."""
    folder = run_path / "control"
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{time.time_ns()}.json"
    temporary = folder / f".{name}.partial"
    temporary.write_text(json.dumps(request))
    return temporary.rename(folder / name)


def ask(run_path: Path, **request: Any) -> None:
    """Leave a request and wait until the controller has taken it. Raises ConfigError where the run is not live or refuses,
    with its reason, DataError if no controller takes it."""
    has_ended = (run_path / "summary.json").exists() and not held(run_path)
    begun = (run_path / "control").exists()
    if not begun and held(run_path):
        raise DataError(
            f"{run_path} is loading and takes no requests yet: ask again once `memr status {run_path}` shows workers"
        )
    if not begun or has_ended or surely_over(run_path):
        raise ConfigError(
            f"{run_path} takes no requests: it is not running, or never was. `memr status {run_path}` shows its state"
        )
    events = RunLines(run_path).events
    events.skip()
    file = leave_request(run_path, **request)
    until = time.monotonic() + ANSWER_WITHIN_S
    while file.exists():
        if time.monotonic() > until:
            file.unlink(missing_ok=True)
            raise DataError(
                f"{run_path}: no controller took the request within {ANSWER_WITHIN_S:.0f} s, so it was withdrawn. "
                f"`memr status {run_path}` shows whether the run is alive"
            )
        time.sleep(0.1)
    if reason := _refusal(events, file.name):
        raise ConfigError(f"{run_path} refuses: {reason}")


def _refusal(events: Growing[Event], request: str) -> str:
    """What the controller said to the request before it took the file away; empty where it obeyed."""
    try:
        told = [event for event in events.look() if isinstance(event, RequestRefused) and event.file == request]
    except DataError:
        return ""
    return told[0].reason if told else ""
