"""Events of a life of a run that takes up what an earlier one left, and of what is asked of it while it goes on."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from cluster.record.events.event import Event, Incident, Said, Severity, counted, stored_as


@dataclass(frozen=True, slots=True)
class Resumed(Event):
    """A run stands where an earlier process of it stood. step: of the checkpoint. updates_replayed: made again from the log.
    memory_calls_replayed: given to memory again. memory_difference: largest difference of an intrinsic reward to the first
    time, 0 expected on the same machine. groups_taken_up: finished groups that wait for scores or for an update."""

    written_as: ClassVar[str] = "resumed"

    step: int
    updates_replayed: int
    memory_calls_replayed: int
    memory_difference: float
    groups_taken_up: int

    @property
    def headline(self) -> str:
        return (
            f"resumed from the checkpoint of update {self.step}: {counted(self.updates_replayed, 'update')} and "
            f"{counted(self.memory_calls_replayed, 'call')} of memory made again (intrinsic rewards differ by at most "
            f"{self.memory_difference:.3g}), {counted(self.groups_taken_up, 'group')} kept"
        )


@dataclass(frozen=True, slots=True)
class CheckpointPassedOver(Event):
    """A checkpoint is damaged or its parts disagree, and an older one is taken. reason: which, and why."""

    written_as: ClassVar[str] = "checkpoint_passed_over"
    level: ClassVar[Severity] = Severity.WARNING

    reason: str

    @property
    def headline(self) -> str:
        return f"a checkpoint was passed over: {self.reason}"


@dataclass(frozen=True, slots=True)
class ReplayedDifferently(Event):
    """An update that was made again gave other weights than the first time. step: of the update. version: of the policy."""

    written_as: ClassVar[str] = "replayed_differently"
    level: ClassVar[Severity] = Severity.WARNING

    step: int
    version: int

    @property
    def headline(self) -> str:
        return f"update {self.step}, made again, gave other weights of version {self.version} than the first time"


@dataclass(frozen=True, slots=True)
class SettingsChanged(Event):
    """A run goes on with other settings than before. changes: by name of the setting its values `before` and `now`."""

    written_as: ClassVar[str] = "settings_changed"

    changes: Mapping[str, Mapping[str, Any]]

    @property
    def headline(self) -> str:
        told = [f"{name} was {of.get('before')!r}, is {of.get('now')!r}" for name, of in self.changes.items()]
        return f"settings changed: {'; '.join(told)}"


@dataclass(frozen=True, slots=True)
class NumbersReadOtherwise(Said):
    """A run goes on with numbers of its data file read in another way than by the commit that began it."""

    written_as: ClassVar[str] = "numbers_read_otherwise"
    level: ClassVar[Severity] = Severity.WARNING


@dataclass(frozen=True, slots=True)
class AnswerRuleChanged(Said):
    """A run goes on under another answer rule. rule, was: number of the rule now and until now."""

    written_as: ClassVar[str] = "answer_rule_changed"
    level: ClassVar[Severity] = Severity.WARNING

    rule: int
    was: int


@dataclass(frozen=True, slots=True)
class AdaptersSetAside(Event):
    """Versions that the log does not know, of a life that a power cut took back, got other folder names. names: the old ones."""

    written_as: ClassVar[str] = "adapters_set_aside"
    level: ClassVar[Severity] = Severity.WARNING

    names: tuple[str, ...]

    @property
    def headline(self) -> str:
        return f"adapters that the log does not know of are now called lost-*: {', '.join(self.names)}"


@dataclass(frozen=True, slots=True)
class TornLogCut(Event):
    """The log ended in half a frame, as after a kill, which was cut off. bytes: number that were."""

    written_as: ClassVar[str] = "torn_log_cut"

    num_bytes: int = field(metadata=stored_as("bytes"))

    @property
    def headline(self) -> str:
        return f"half a frame at the end of the log was cut off, {counted(self.num_bytes, 'byte')}"


@dataclass(frozen=True, slots=True)
class LogCutShort(Incident):
    """The log ends before the place that a checkpoint points to: the disk lost what it had confirmed."""

    written_as: ClassVar[str] = "log_cut_short"


@dataclass(frozen=True, slots=True)
class RequestRefused(Event):
    """A request of `memr scale` or `memr stop` cannot be obeyed. file: name of the request. reason: why."""

    written_as: ClassVar[str] = "request_refused"

    file: str
    reason: str

    @property
    def headline(self) -> str:
        return f"a request was refused: {self.reason}"
