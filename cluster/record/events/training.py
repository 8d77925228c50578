"""Events of training: versions, updates, memory, evaluations, alarms."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from cluster.record.events.event import Event, Incident, Said, Severity, counted, stored_as


@dataclass(frozen=True, slots=True)
class Published(Event):
    """An adapter is handed to the workers. version: of the policy. bytes: size of its weights."""

    written_as: ClassVar[str] = "published"

    version: int
    num_bytes: int = field(metadata=stored_as("bytes"))

    @property
    def headline(self) -> str:
        return f"version {self.version} is published, {self.num_bytes:,} bytes"


@dataclass(frozen=True, slots=True)
class CheckpointWritten(Event):
    """A checkpoint was read back and has its name. step: updates made. folder: its path."""

    written_as: ClassVar[str] = "checkpoint"

    step: int
    folder: str

    @property
    def headline(self) -> str:
        return f"the checkpoint of update {self.step} is written: {self.folder}"


@dataclass(frozen=True, slots=True)
class MemoryLate(Event):
    """A group did not wait any longer for its intrinsic rewards (memory.deadline_s). lease: id of the group's lease."""

    written_as: ClassVar[str] = "memory_late"
    level: ClassVar[Severity] = Severity.WARNING

    lease: int

    @property
    def headline(self) -> str:
        return f"memory did not answer in time for the group of lease {self.lease}, which trains without a bonus"


@dataclass(frozen=True, slots=True)
class Mismatch(Event):
    """Learner and engine differ over tokens of the learner's own version. step: of the update. mean, p99: mean and 99th
    percentile of the absolute difference of their log-probs, in nats per token."""

    written_as: ClassVar[str] = "mismatch"
    level: ClassVar[Severity] = Severity.WARNING

    step: int
    mean: float
    p99: float

    @property
    def headline(self) -> str:
        return (
            f"update {self.step}: log-probs of learner and engine differ by {self.mean:.3g} nats per token on average, by "
            f"{self.p99:.3g} at the 99th percentile (learner.mismatch_warn)"
        )


@dataclass(frozen=True, slots=True)
class UpdateLost(Event):
    """What samples is not the policy that is trained: the adapter is merged into bfloat16 weights. step: of the update. version:
    of the policy. survival: share of the adapter that acts there."""

    written_as: ClassVar[str] = "update_lost"
    level: ClassVar[Severity] = Severity.WARNING

    step: int
    version: int
    survival: float

    @property
    def headline(self) -> str:
        return (
            f"version {self.version}: of the adapter {self.survival:.1%} acts in the merged bfloat16 weights that sample, the "
            "rest is rounded away (actors.lora_path = 'unmerged' keeps it)"
        )


@dataclass(frozen=True, slots=True)
class FirstBatchTooSmall(Event):
    """The first batch would raise an alarm and is too small to conclude from. groups: in it. says: headline of that alarm."""

    written_as: ClassVar[str] = "first_batch_too_small_to_conclude_from"
    level: ClassVar[Severity] = Severity.WARNING

    groups: int
    says: str

    @property
    def headline(self) -> str:
        return f"{counted(self.groups, 'group')}, too few to conclude from: {self.says}"


@dataclass(frozen=True, slots=True)
class LearnerSays(Said):
    """A choice that the learner made when it loaded its model."""

    written_as: ClassVar[str] = "learner_says"
    shows: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class AlarmRaised(Incident):
    """A monitor of `[alarms]` found a failure of learning. alarm: its name in `[alarms]`, part of the event's name. action: warn,
    pause or roll_back. step: updates made then (runs of 57c9e8c did not write it)."""

    written_as: ClassVar[str] = "alarm_"

    alarm: str
    action: str = "warn"
    step: int | None = None

    @property
    def name(self) -> str:
        return f"{self.written_as}{self.alarm}"

    def facts(self) -> dict[str, Any]:
        return {"headline": self.headline, "action": self.action, "step": self.step}

    @classmethod
    def fields_of(cls, name: str, line: Mapping[str, Any]) -> dict[str, Any]:
        known = {key: line[key] for key in ("time_s", "headline", "action", "step") if key in line}
        return known | {"alarm": name.removeprefix(cls.written_as)}


@dataclass(frozen=True, slots=True)
class OutOfMemory(Incident):
    """The learner ran out of memory and goes on in smaller micro-batches."""

    written_as: ClassVar[str] = "out_of_memory"


@dataclass(frozen=True, slots=True)
class UpdateSkipped(Incident):
    """An update had bad numbers, and its version has the weights of the one before. version: of the policy."""

    written_as: ClassVar[str] = "update_skipped"

    version: int


@dataclass(frozen=True, slots=True)
class RolledBack(Incident):
    """The policy went back to the weights of a checkpoint, under the next version."""

    written_as: ClassVar[str] = "rolled_back"


@dataclass(frozen=True, slots=True)
class EvaluationFailed(Incident):
    """An evaluation broke beside training; its error ends the run after the last update."""

    written_as: ClassVar[str] = "evaluation_failed"


@dataclass(frozen=True, slots=True)
class EvaluationSkipped(Incident):
    """A version is not evaluated: no worker serves it, or its adapter is gone."""

    written_as: ClassVar[str] = "evaluation_skipped"


@dataclass(frozen=True, slots=True)
class EvaluationInvalid(Incident):
    """A held-out answer could not be judged and counts as wrong, once for each evaluation. version: of the policy. Where an
    earlier evaluation of this life had such answers too it is no incident, and `reason` is the key of the headline."""

    written_as: ClassVar[str] = "evaluation_invalid"

    version: int
    again: bool = False

    @property
    def severity(self) -> Severity:
        return Severity.INFO if self.again else self.level

    def facts(self) -> dict[str, Any]:
        if self.again:
            return {"version": self.version, "reason": self.headline}
        return {"headline": self.headline, "version": self.version}

    @classmethod
    def fields_of(cls, _name: str, line: Mapping[str, Any]) -> dict[str, Any]:
        known = {key: line[key] for key in ("time_s", "version", "headline") if key in line}
        return {"headline": line["reason"], "again": True} | known if "reason" in line else known
