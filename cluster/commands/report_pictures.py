"""The pictures of `memr report`: curves over a run's updates, as PNGs in base64."""

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cluster.record.run_dir import RunRecord
from cluster.watch.alarms.reward_errors import error_shares

matplotlib.use("agg")

Lines = Sequence[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Picture:
    """says: the sentence below the title."""

    title: str
    says: str
    png_base64: str


def pictures_of(run: RunRecord) -> list[Picture]:
    """None for a run without an update."""
    lines = run.metrics
    if not lines:
        return []
    return [*_learning(run, lines), *_reward_errors(lines), *_survival(lines), *_machinery(lines), *_memory(lines)]


def _learning(run: RunRecord, lines: Lines) -> list[Picture]:
    rewards = "mean per rollout; parts are weighted, exploit and explore before weighting"
    return [
        _picture("Reward by part", rewards, lambda ax: _reward_parts(ax, lines)),
        _picture(
            "Held-out accuracy", "problems never trained on; task reward only", lambda ax: _held_out(ax, run.evals)
        ),
        _picture(
            "Answer length and truncation",
            "tokens per answer, and the share cut off at the limit",
            lambda ax: _two_axes(ax, lines, "completion_tokens_mean", "truncated_share"),
        ),
        _picture(
            "Entropy and gradient",
            "policy entropy per token in nats, gradient norm",
            lambda ax: _two_axes(ax, lines, "entropy", "grad_norm"),
        ),
    ]


def _machinery(lines: Lines) -> list[Picture]:
    return [
        _picture(
            "Lag",
            "policy version at the update minus version at the first token",
            lambda ax: _curves(ax, lines, ["lag_mean", "lag_max"]),
        ),
        _picture(
            "Learner against engine",
            "mean and 99th percentile of |log p learner - log p engine| on trained tokens",
            lambda ax: _curves(ax, lines, ["mismatch_mean", "mismatch_p99"]),
        ),
        _picture(
            "Where a step's time goes",
            "seconds per update: waiting for rollouts, for memory, updating",
            lambda ax: _times(ax, lines),
        ),
    ]


def _memory(lines: Lines) -> list[Picture]:
    changes = (
        "share of groups whose advantages the bonus changed, of those where it may act; its share of the squared "
        "advantage, there and where the task gives a signal"
    )
    return [
        _picture("What memory changes", changes, lambda ax: _memory_effect(ax, lines)),
        _picture(
            "Spread of the intrinsic rewards",
            "standard deviation within a group, mean over the groups where memory may act",
            lambda ax: _spreads(ax, lines),
        ),
        _picture(
            "Memory growth",
            "episodes and questions stored",
            lambda ax: _curves(ax, lines, ["memory_episodes", "memory_queries"]),
        ),
    ]


def _reward_errors(lines: Lines) -> list[Picture]:
    """Where something failed."""
    names, known = list(error_shares(lines)), [line for line in lines if "reward_errors" in line]
    if not names:
        return []

    def draw(axes: Axes) -> None:
        for name in names:
            axes.plot(_steps(known), [line["reward_errors"].get(name, 0.0) for line in known], label=name)
        axes.set_ylim(0, 1)

    says = "share of rollouts over which the scorer failed (the answer counts as wrong) or a reward part (it counts 0 there)"
    return [_picture("What failed in scoring", says, draw)]


def _survival(lines: Lines) -> list[Picture]:
    """Of the updates that say so: a run that an older commit began does not from its first one on."""
    known = [line for line in lines if "merged_survival" in line]
    if not known:
        return []
    says = (
        "share of the adapter that acts in the weights that sample (1: added beside them, nothing is lost), and that "
        "would act in bfloat16 weights with the adapter merged in"
    )
    return [
        _picture(
            "What acts of the adapter", says, lambda ax: _curves(ax, known, ["sampled_survival", "merged_survival"])
        )
    ]


def _picture(title: str, says: str, draw: Callable[[Axes], None]) -> Picture:
    figure = Figure(figsize=(5.2, 2.9), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    draw(axes)
    axes.set_xlabel("update")
    axes.grid(alpha=0.25)
    handles, _ = axes.get_legend_handles_labels()
    if handles:
        axes.legend(frameon=False, fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return Picture(title, says, base64.b64encode(buffer.getvalue()).decode())


def _steps(lines: Lines) -> list[int]:
    return [line["step"] for line in lines]


def _curves(axes: Axes, lines: Lines, names: Sequence[str]) -> None:
    for name in names:
        axes.plot(_steps(lines), [line[name] for line in lines], label=name.replace("_", " "))


def _two_axes(axes: Axes, lines: Lines, left: str, right: str) -> None:
    _curves(axes, lines, [left])
    other = axes.twinx()
    other.plot(_steps(lines), [line[right] for line in lines], color="tab:orange")
    other.set_ylabel(right.replace("_", " "), color="tab:orange")


def _reward_parts(axes: Axes, lines: Lines) -> None:
    for name in sorted(lines[-1]["reward_parts"]):
        axes.plot(_steps(lines), [line["reward_parts"].get(name, 0.0) for line in lines], label=name)
    _curves(axes, lines, ["intrinsic_exploit", "intrinsic_explore"])
    axes.plot(_steps(lines), [line["reward"] for line in lines], "k--", label="reward (mix)")


def _held_out(axes: Axes, evals: Lines) -> None:
    for limit, k in sorted({(line["max_new_tokens"], line["k"] or 0) for line in evals}):
        chosen = [line for line in evals if (line["max_new_tokens"], line["k"] or 0) == (limit, k)]
        values = [line["pass_at_k"] if k else line["accuracy"] for line in chosen]
        label = f"pass@{k}" if k else "greedy"
        axes.plot([line["step"] for line in chosen], values, "o-", label=f"{label}, {limit} tokens")
    axes.set_ylim(0, 1)


def _times(axes: Axes, lines: Lines) -> None:
    names = ["wait_rollouts_s", "wait_memory_s", "update_s", "publish_s"]
    axes.stackplot(
        _steps(lines),
        [[line[n] for line in lines] for n in names],
        labels=[n.removesuffix("_s").replace("_", " ") for n in names],
    )


def _memory_effect(axes: Axes, lines: Lines) -> None:
    """Runs of 57c9e8c recorded none of it."""
    known = [line for line in lines if "bonus_groups" in line]
    _curves(axes, known, ["bonus_changed_share", "bonus_advantage_share", "bonus_signal_share"])
    axes.set_ylim(0, 1)


def _spreads(axes: Axes, lines: Lines) -> None:
    _curves(axes, [line for line in lines if "bonus_groups" in line], ["exploit_std", "explore_std", "bonus_std"])
