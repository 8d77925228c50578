"""Events of rollout workers: they join, leave, serve versions, sample, are lost; and of the problems that they sample."""

from dataclasses import dataclass, field
from typing import ClassVar

from cluster.record.events.event import Event, Incident, Severity, counted, stored_as


@dataclass(frozen=True, slots=True)
class Joined(Event):
    """A rollout worker has loaded its model. worker: its id. seconds: since its start."""

    written_as: ClassVar[str] = "joined"
    shows: ClassVar[bool] = True

    worker: str
    seconds: float

    @property
    def headline(self) -> str:
        return f"{self.worker} joined, {self.seconds:.3g} s after its start"


@dataclass(frozen=True, slots=True)
class Left(Event):
    """A rollout worker has drained and ended. worker: its id."""

    written_as: ClassVar[str] = "left"
    shows: ClassVar[bool] = True

    worker: str

    @property
    def headline(self) -> str:
        return f"{self.worker} left"


@dataclass(frozen=True, slots=True)
class Draining(Event):
    """A rollout worker is surplus and gets nothing new. worker: its id. rollouts_in_hand: which it finishes first."""

    written_as: ClassVar[str] = "draining"

    worker: str
    rollouts_in_hand: int

    @property
    def headline(self) -> str:
        return f"{self.worker} is to leave and finishes {counted(self.rollouts_in_hand, 'rollout')} before"


@dataclass(frozen=True, slots=True)
class Scaled(Event):
    """The number of rollout workers was set. kind: their pool. workers, before: number now and until now."""

    written_as: ClassVar[str] = "scaled"
    shows: ClassVar[bool] = True

    pool: str = field(metadata=stored_as("kind"))
    workers: int
    before: int

    @property
    def headline(self) -> str:
        return f"pool '{self.pool}' is to have {counted(self.workers, 'worker')}, until now {self.before}"


@dataclass(frozen=True, slots=True)
class Autoscaled(Event):
    """Autoscaling set the number of rollout workers. workers: number in all pools. reason: who waits for whom."""

    written_as: ClassVar[str] = "autoscaled"
    shows: ClassVar[bool] = True

    workers: int
    reason: str

    @property
    def headline(self) -> str:
        return f"autoscaling asks for {counted(self.workers, 'worker')}: {self.reason}"


@dataclass(frozen=True, slots=True)
class AutoscaleRefused(Event):
    """Autoscaling asked for a number of workers that cannot be. workers: number in all pools. reason: what is short."""

    written_as: ClassVar[str] = "autoscale_refused"

    workers: int
    reason: str

    @property
    def headline(self) -> str:
        return f"autoscaling asked for {counted(self.workers, 'worker')}, which cannot be had: {self.reason}"


@dataclass(frozen=True, slots=True)
class Proven(Event):
    """A rollout worker has proven a policy version and serves it. worker: its id. version: of the policy."""

    written_as: ClassVar[str] = "proven"

    worker: str
    version: int

    @property
    def headline(self) -> str:
        return f"{self.worker} has proven version {self.version} and serves it"


@dataclass(frozen=True, slots=True)
class AdoptFailed(Event):
    """A rollout worker could not load a policy version; its health is checked. worker: its id. version: of the policy.
    error: what it said."""

    written_as: ClassVar[str] = "adopt_failed"

    worker: str
    version: int
    error: str

    @property
    def headline(self) -> str:
        return f"{self.worker} could not load version {self.version}: {self.error}"


@dataclass(frozen=True, slots=True)
class SamplingFailed(Event):
    """A call to a worker failed; its leases are tried again or given up. leases: their ids. error: what the call raised."""

    written_as: ClassVar[str] = "sampling_failed"
    level: ClassVar[Severity] = Severity.WARNING

    leases: tuple[int, ...]
    error: str

    @property
    def headline(self) -> str:
        return f"sampling of {counted(len(self.leases), 'problem')} failed: {self.error}"


@dataclass(frozen=True, slots=True)
class SampledAgain(Event):
    """The engine spoilt a group and its problem goes back. lease: its id. worker: which sampled it. endings: finish reasons
    of the rollouts."""

    written_as: ClassVar[str] = "sampled_again"

    lease: int
    worker: str
    endings: tuple[str, ...]

    @property
    def headline(self) -> str:
        return f"lease {self.lease} is sampled again: at {self.worker} rollouts ended with {', '.join(self.endings)}"


@dataclass(frozen=True, slots=True)
class WorkerLost(Incident):
    """A rollout worker died, was stuck or is at fault. worker: its id. replaced: whether another one is started."""

    written_as: ClassVar[str] = "worker_lost"

    worker: str
    replaced: bool


@dataclass(frozen=True, slots=True)
class VersionRefused(Incident):
    """A rollout worker could not prove a policy version. worker: its id. version: of the policy. refusals: times that it has
    refused this version. follows: `again`, `wait`, `worker` or
    `version` (cluster/flow/proof_votes.py). cause: `rounding`, `identity` or `bytes`."""

    written_as: ClassVar[str] = "version_refused"

    worker: str
    version: int
    refusals: int
    follows: str | None = None
    cause: str = ""


@dataclass(frozen=True, slots=True)
class VersionSkipped(Incident):
    """No worker of a pool serves a policy version. version: of the policy. pool: of the workers. serves: the version that they
    serve, null for none. newest: version published last."""

    written_as: ClassVar[str] = "version_skipped"

    version: int
    pool: str = ""
    serves: int | None = None
    newest: int | None = None


@dataclass(frozen=True, slots=True)
class Quarantined(Incident):
    """A problem did harm twice and is not issued again in this run."""

    written_as: ClassVar[str] = "quarantined"


@dataclass(frozen=True, slots=True)
class CouldNotBeJudged(Incident):
    """A verifier, users' code or an environment failed over an answer; once for each fault. worker: id of the worker."""

    written_as: ClassVar[str] = "could_not_be_judged"

    worker: str = ""
