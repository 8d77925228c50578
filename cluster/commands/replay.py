"""`memr replay`: a run's intrinsic rewards once more, from its log, compared with what the run trained on.

RUN/log -> every call of memory, in order -> a fresh memory service -> largest difference (0 expected on the same machine)
"""

from dataclasses import dataclass
from pathlib import Path

from cluster.launch.environment import apply_environment
from cluster.record.checkpoint import log_floor
from cluster.record.history import RecoveredState, largest_gap, read_recovered
from cluster.record.run_log import BEGINNING
from cluster.record.run_view import read_run
from contracts.errors import ConfigError, DataError
from memory_service.encoder import load_encoder
from memory_service.service import EpisodicMemory


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """worst: the group with the largest difference, as "lease of version", where there is one."""

    calls: int
    rollouts: int
    largest_difference: float
    worst: str


def replay_run(run_path: Path) -> ReplayReport:
    """Raises ConfigError for a run without memory, DataError for a damaged log."""
    run = read_run(run_path)
    apply_environment(run.config.cluster.env)
    settings = run.config.memory
    if not settings.enabled:
        raise ConfigError(f"{run_path} ran with memory.profile = 'off': there are no intrinsic rewards to recompute")
    past = read_recovered(run_path / "log", RecoveredState(), BEGINNING, memory_on=True, floor=log_floor(run_path))
    if run.metrics and not past.calls:
        raise DataError(
            f"{run_path / 'log'} has no group that memory scored, and metrics.jsonl has {len(run.metrics)} updates: there is "
            "nothing to compare. Restore the run's log from a copy of the run"
        )
    memory = EpisodicMemory(settings, load_encoder(settings), value_of_correct=run.config.value_of_correct)
    rollouts, largest, worst = 0, 0.0, ""
    for call in past.calls:
        for first, again in zip(call, memory.score([scored.group for scored in call]), strict=True):
            rollouts += len(first.group.rollouts)
            gap = largest_gap(first, again)
            if gap > largest:
                largest, worst = gap, f"lease {first.group.lease_id}, memory version {first.memory_version}"
    return ReplayReport(len(past.calls), rollouts, largest, worst)
