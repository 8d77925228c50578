"""Events of what fails and of how it goes on: the run's own process, its supervisor, Ray, learner and memory."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from cluster.record.events.event import Event, Incident, Said, Severity, stored_as


@dataclass(frozen=True, slots=True)
class Stopped(Incident):
    """The run ended itself; what it found has to be cured first."""

    written_as: ClassVar[str] = "stopped"


@dataclass(frozen=True, slots=True)
class PartLost(Incident):
    """A process without which the run cannot go on was lost for good; the supervisor resumes the run."""

    written_as: ClassVar[str] = "part_lost"


@dataclass(frozen=True, slots=True)
class ErrorUnderWay(Incident):
    """Work under way failed while the run was ending for another reason. error: name of the exception."""

    written_as: ClassVar[str] = "error_under_way"

    error: str = ""


@dataclass(frozen=True, slots=True)
class Crashed(Incident):
    """An error that nobody foresaw ended the run's own process. trace: its traceback, in the incident's file alone."""

    written_as: ClassVar[str] = "crashed"

    trace: str = ""

    def facts(self) -> dict[str, Any]:
        return {"headline": self.headline}

    def to_incident(self) -> dict[str, Any]:
        return {"time_s": self.time_s, "incident": self.name} | self.facts() | {"trace": self.trace}


@dataclass(frozen=True, slots=True)
class RayFailed(Incident):
    """Ray raised an error; the supervisor resumes the run."""

    written_as: ClassVar[str] = "ray_failed"


@dataclass(frozen=True, slots=True)
class RayDied(Incident):
    """A process of Ray died; the run's processes were ended."""

    written_as: ClassVar[str] = "ray_died"


@dataclass(frozen=True, slots=True)
class Stuck(Incident):
    """The run did not move. The stacks of its processes lie beside the incident's file."""

    written_as: ClassVar[str] = "hang"


@dataclass(frozen=True, slots=True)
class RunDied(Incident):
    """The run's own process ended without a word. exit_code: of the process, -9 for SIGKILL."""

    written_as: ClassVar[str] = "run_died"

    exit_code: int


@dataclass(frozen=True, slots=True)
class SupervisorDied(Incident):
    """The supervisor is gone, so the run writes a checkpoint and ends. The name is also `ended_by` in summary.json."""

    written_as: ClassVar[str] = "supervisor_died"


@dataclass(frozen=True, slots=True)
class GaveUp(Incident):
    """The run failed more often than supervision.run_restarts allows."""

    written_as: ClassVar[str] = "gave_up"


@dataclass(frozen=True, slots=True)
class Restarted(Said):
    """The supervisor resumes the run. headline: what ended it. restart: number within the window. after_s: pause in seconds."""

    written_as: ClassVar[str] = "restart"
    level: ClassVar[Severity] = Severity.WARNING

    restart: int
    after_s: float


@dataclass(frozen=True, slots=True)
class EndedByForce(Said):
    """The run was asked to end and did not in time, or was asked twice."""

    written_as: ClassVar[str] = "ended_by_force"
    level: ClassVar[Severity] = Severity.WARNING


@dataclass(frozen=True, slots=True)
class ProcessLeft(Event):
    """A process that a dead run left behind was ended. pid: its number. name: of its program."""

    written_as: ClassVar[str] = "process_left"

    pid: int
    program: str = field(metadata=stored_as("name"))

    @property
    def headline(self) -> str:
        return f"process {self.pid} ({self.program}) was left behind and is ended"


@dataclass(frozen=True, slots=True)
class LearnerLost(Incident):
    """The learner's process died or gave no answer. decision: `restart component`, or `restart run` where the budget is spent."""

    written_as: ClassVar[str] = "learner_lost"

    decision: str


@dataclass(frozen=True, slots=True)
class MemoryLost(Incident):
    """Memory's process died or gave no answer. decision: `restart component`, or `restart run` where the budget is spent."""

    written_as: ClassVar[str] = "memory_lost"

    decision: str


@dataclass(frozen=True, slots=True)
class LearnerRevived(Event):
    """A new learner is what the lost one was. seconds: since the loss was found."""

    written_as: ClassVar[str] = "learner_revived"

    seconds: float

    @property
    def headline(self) -> str:
        return f"the learner is back, {self.seconds:.3g} s after it was lost"


@dataclass(frozen=True, slots=True)
class MemoryRevived(Event):
    """A new memory is what the lost one was. seconds: since the loss was found."""

    written_as: ClassVar[str] = "memory_revived"

    seconds: float

    @property
    def headline(self) -> str:
        return f"memory is back, {self.seconds:.3g} s after it was lost"


@dataclass(frozen=True, slots=True)
class WatcherFailed(Event):
    """A console, hook or TensorBoard failed and shows nothing more. watcher: name of its class. error: what it raised."""

    written_as: ClassVar[str] = "watcher_failed"
    level: ClassVar[Severity] = Severity.WARNING

    watcher: str
    error: str

    @property
    def headline(self) -> str:
        return f"{self.watcher} failed and shows nothing more: {self.error}"


@dataclass(frozen=True, slots=True)
class NoticeFailed(Event):
    """A destination of [notify] did not take a notice; the first time for each, in each process. destination: its setting.
    notice: name of the notice. error: the reason, without the address."""

    written_as: ClassVar[str] = "notice_failed"
    level: ClassVar[Severity] = Severity.WARNING

    destination: str
    notice: str
    error: str

    @property
    def headline(self) -> str:
        return f"{self.destination} did not take the event '{self.notice}': {self.error}"
