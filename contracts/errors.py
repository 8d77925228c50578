"""Errors that somebody catches. Everything else is ValueError (wrong input) or assert (our own bug).

Every message says what happened, where, and what to change. All of them survive pickling, because
they travel through Ray: the constructor takes the one message string and nothing else.
"""


class MemrError(Exception):
    """Root of the errors that memr raises on purpose; the command line prints them without a traceback."""


class ConfigError(MemrError):
    """The configuration is wrong (exit code 2)."""


class DataError(MemrError):
    """A dataset, a model file or a run directory cannot be read as what it claims to be."""


class StaleGroupError(MemrError):
    """A group reached the learner with more lag than the run allows."""


class AdapterMissingError(MemrError):
    """A lease names a policy version that the worker does not hold."""


class EngineError(MemrError):
    """The generation engine failed; the lease goes back with this as its reason."""


class ProofError(MemrError):
    """A worker's log-probs of the learner's probes are not the learner's: it must not serve this version."""


class PartLostError(MemrError):
    """A process of the run (worker, memory, learner) died; the message names it and its last words."""


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
