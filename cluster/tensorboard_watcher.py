"""metrics.jsonl, again, for TensorBoard: `tensorboard --logdir runs`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from contracts.rollout import ScoredGroup


class TensorboardWatcher:
    """Every number of a metrics or evaluation line under its own name."""

    def __init__(self, run_path: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run_path / "tensorboard"))

    def watch(self, kind: str, line: dict[str, Any]) -> None:
        if kind not in ("metrics", "eval"):
            return
        for name, value in _numbers(line):
            self._writer.add_scalar(f"{kind}/{name}", value, line["step"])

    def show_groups(self, groups: Sequence[ScoredGroup]) -> None:
        """Transcripts are in rollouts/ and in the report."""

    def close(self) -> None:
        self._writer.close()


def _numbers(line: dict[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    found = []
    for name, value in line.items():
        if isinstance(value, dict):
            found += _numbers(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and name != "step":
            found.append((prefix + name, float(value)))
    return found
