"""One view of a run, from its files alone: settings, series, evaluations, events, incidents, fleet. Live, dead or copied.

    config.toml manifest.json status.json summary.json --+
    metrics.jsonl eval.jsonl events.jsonl --RunLines-----+--> RunView --> status, summary, report, next steps
    incidents/ --IncidentFiles---------------------------+

RunView is data and pure functions of it; RunReader reads, and at its second look only what was appended.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.config.run_config import RunConfig, load_config
from cluster.config.run_folder import MANIFEST, refuse_other_than_run
from cluster.record.events.event import Event
from cluster.record.incidents import IncidentFiles
from cluster.record.run_dir import sign_of_life
from cluster.record.run_lines import RunLines
from contracts.errors import DataError
from storage.bounded_json import read_object

Line = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Series:
    """One number of each update that has it."""

    steps_N: tuple[int, ...]
    values_N: tuple[float, ...]

    def __bool__(self) -> bool:
        return bool(self.steps_N)


@dataclass(frozen=True, slots=True)
class EvalCurve:
    """One kind of evaluation over a run: accuracy, or pass@k, at most max_new_tokens an answer."""

    max_new_tokens: int
    k: int | None
    points: Series


@dataclass(frozen=True, slots=True)
class WorkerNow:
    """A rollout worker as status.json has it. state: serving, unhealthy, draining or dead. version: of the policy that it
    serves, -1 for none yet. figures: of its reports, as record/worker_figures.py names them."""

    worker: str
    state: str
    version: int
    rollouts_in_hand: int
    figures: Line


@dataclass(frozen=True, slots=True)
class RunView:
    """A run as it stands on disk. metrics: one line per update; evals: one per evaluation (docs/architecture.md). status: of
    its last sign of life; summary: of the life that ended last, None while a later one goes on."""

    path: Path
    config: RunConfig
    manifest: Line
    metrics: list[Line]
    evals: list[Line]
    events: Sequence[Event] = ()
    incidents: Sequence[Event] = ()
    status: Line | None = None
    summary: Line | None = None

    @property
    def finished(self) -> bool:
        """Every update was made; a run that was stopped before can be resumed."""
        return self.summary is not None and self.summary.get("exit_code") == 0

    @property
    def model_path(self) -> str:
        """The base model, as the run loaded it. Raises DataError where the manifest does not say."""
        found = self.manifest.get("model_path")
        if not isinstance(found, str):
            raise DataError(f"{self.path / MANIFEST} names no model_path: the run stopped before it had a model")
        return found

    @property
    def updates_without_metrics(self) -> int:
        """Updates of a run that has ended whose line is not in metrics.jsonl: a file that was cut, emptied or left behind."""
        made = int(self.summary.get("updates", 0)) if self.summary is not None else 0
        return max(0, made - len({line["step"] for line in self.metrics}))

    @property
    def fleet(self) -> list[WorkerNow]:
        """Its workers at the last sign of life; none once it has ended."""
        found = (self.status or {}).get("fleet", {}) if self.summary is None else {}
        return [WorkerNow(name, of["state"], of["version"], of["rollouts_in_hand"], of) for name, of in found.items()]

    def series(self, name: str) -> Series:
        """A number of metrics.jsonl by update; those of older commits that did not write it are left out."""
        return series(self.metrics, name)

    def parts(self, name: str) -> dict[str, Series]:
        """The same of an object of numbers, by key; 0 where a line's object lacks the key."""
        lines = [line for line in self.metrics if name in line]
        keys = sorted({key for line in lines for key in line[name]})
        flat = {key: [{"step": line["step"], key: line[name].get(key, 0.0)} for line in lines] for key in keys}
        return {key: series(flat[key], key) for key in keys}

    def eval_curves(self) -> list[EvalCurve]:
        """Evaluations by kind, shortest answers and greedy first."""
        kinds = sorted({(line["max_new_tokens"], line["k"] or 0) for line in self.evals})
        found = []
        for limit, k in kinds:
            lines = [line for line in self.evals if (line["max_new_tokens"], line["k"] or 0) == (limit, k)]
            found.append(EvalCurve(limit, k or None, series(lines, "pass_at_k" if k else "accuracy")))
        return found


def series(lines: Sequence[Mapping[str, Any]], name: str) -> Series:
    """Of the lines that have the name."""
    known = [line for line in lines if name in line]
    return Series(tuple(line["step"] for line in known), tuple(line[name] for line in known))


class RunReader:
    """Looks at one run again and again. Raises ConfigError if the folder is no run."""

    def __init__(self, path: Path) -> None:
        refuse_other_than_run(path)
        self._path = path
        self._lines, self._incidents = RunLines(path), IncidentFiles(path)

    def look(self) -> RunView:
        """The run as it stands now. Raises DataError where a file of it is damaged."""
        path = self._path
        try:
            manifest = read_object(path / MANIFEST)
        except DataError as error:
            raise DataError(f"{error}; restore it from a copy of the run") from error
        summary = path / "summary.json"
        return RunView(
            path=path,
            config=load_config(path / "config.toml"),
            manifest=manifest,
            metrics=self._lines.metrics.look(),
            evals=self._lines.evals.look(),
            events=self._lines.events.look(),
            incidents=self._incidents.look(),
            status=sign_of_life(path / "status.json"),
            summary=read_object(summary) if summary.exists() else None,
        )


def read_run(path: Path) -> RunView:
    """One look. Raises ConfigError if the folder is no run, DataError if it is a damaged one."""
    return RunReader(path).look()
