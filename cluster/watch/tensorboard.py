"""metrics.jsonl and eval.jsonl, again, for TensorBoard: `tensorboard --logdir runs`.

Each kind of evaluation has tags of its own, so that one curve is one measurement; the x axis is the update everywhere.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster.record.events.event import Event
from contracts.rollout import ScoredGroup

_SECTIONS = {
    "memory": ("memory_", "intrinsic_", "bonus", "exploit_", "explore_"),
    "perf": (
        *("tokens_generated", "tokens_trained", "workers", "buffered_", "peak_"),
        *("verify_share", "leases_", "by_worker/"),
    ),
    "stability": (
        "lag_",
        "mismatch_",
        "importance_",
        "clip_",
        "kl",
        "entropy",
        "grad_",
        "adapter_",
        "merged_",
        "sampled_",
    ),
    "ledger": ("ledger/", "dropped_or_failed/"),
    "reward": ("reward", "task_reward", "accuracy", "advantage_"),
}
"""Section of a number by how its name begins; seconds are perf, what fits nowhere is "train"."""


class TensorboardWatcher:
    """Every number of a metrics or evaluation line under its own name."""

    def __init__(self, run_path: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run_path / "tensorboard"))

    def watch(self, kind: str, line: dict[str, Any]) -> None:
        if kind not in ("metrics", "eval"):
            return
        for name, value in _numbers(line):
            tag = f"{_evaluation(line)}/{name}" if kind == "eval" else f"{_section(name)}/{name}"
            self._writer.add_scalar(tag, value, line["step"])

    def show_event(self, event: Event) -> None:
        """Events are in events.jsonl."""

    def show_groups(self, groups: Sequence[ScoredGroup]) -> None:
        """Transcripts are in rollouts/ and in the report."""

    def close(self) -> None:
        self._writer.close()


def _evaluation(line: dict[str, Any]) -> str:
    """What was measured: `eval_greedy_64_tokens`, `eval_pass_at_4_64_tokens`."""
    how = f"pass_at_{line['k']}" if line["k"] else "greedy"
    return f"eval_{how}_{line['max_new_tokens']}_tokens"


def _section(name: str) -> str:
    if name.endswith("_s"):
        return "perf"
    return next((section for section, begins in _SECTIONS.items() if name.startswith(begins)), "train")


def _numbers(line: dict[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    found = []
    for name, value in line.items():
        if isinstance(value, dict):
            found += _numbers(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and name not in ("step", "k", "max_new_tokens"):
            found.append((prefix + name, float(value)))
    return found
