"""Errors that are caught somewhere. Everything else is ValueError (wrong input) or assert (our own bug).

Every message says what happened, where, and what to change. All of them survive pickling, because
they travel through Ray: the constructor takes the one message string, and what has a default (pickling keeps attributes).
"""

from enum import StrEnum


class MemrError(Exception):
    """Root of the errors that memr raises on purpose; the command line prints them without a traceback."""


class ConfigError(MemrError):
    """The configuration is wrong (exit code 2)."""


class DataError(MemrError):
    """A dataset, a model file or a run directory cannot be read as what it claims to be."""


class LoadError(DataError):
    """What the configuration names (model, tokenizer, chat template, encoder, package) cannot be loaded: exit code 2, and no
    second try, which would end the same. In a run that has begun, which did load it before, the restart budget gives some."""


class StaleGroupError(MemrError):
    """A group reached the learner with more lag than the run allows."""


class AdapterMissingError(MemrError):
    """A lease names a policy version that the worker does not hold."""


class EngineError(MemrError):
    """The generation engine failed; the lease goes back with this as its reason."""


class RefusalCause(StrEnum):
    """What a refused version calls for: other numbers, the same artifacts on both sides, or the bytes once more."""

    ROUNDING = "rounding"
    IDENTITY = "identity"
    BYTES = "bytes"


class ProofError(MemrError):
    """A worker's log-probs of the learner's probes are not the learner's: it must not serve this version."""

    def __init__(self, message: str, cause: RefusalCause = RefusalCause.ROUNDING) -> None:
        super().__init__(message)
        self.cause = cause


def cause_of_refusal(error: Exception) -> RefusalCause:
    """A ValueError from a worker that adopts is an artifact that does not fit its model or its number."""
    return error.cause if isinstance(error, ProofError) else RefusalCause.IDENTITY


class ActorLostError(MemrError):
    """A process of the run (worker, memory, learner) died; the message names it and its last output."""


class LearnerError(MemrError):
    """An update broke an invariant: non-finite numbers, zero gradient where rewards vary."""


class BadNumbersError(LearnerError):
    """An update met numbers that are not finite, or would change the adapter beyond reason; the weights are as before."""


class MemoryServiceError(MemrError):
    """The episodic memory refused an input or found its state inconsistent."""


class LedgerError(MemrError):
    """issued = trained + dropped + failed + in flight + buffered does not hold."""


class RunStopped(MemrError):
    """The run ends before its last update; the message is the reason (exit code 3)."""
