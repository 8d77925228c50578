"""The pictures of `memr report`: curves over a run's updates, as PNGs in base64."""

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cluster.record.run_view import RunView, Series
from cluster.watch.alarms.reward_errors import error_shares

matplotlib.use("agg")


@dataclass(frozen=True, slots=True)
class Picture:
    """says: the sentence below the title."""

    title: str
    says: str
    png_base64: str


def pictures_of(run: RunView) -> list[Picture]:
    """None for a run without an update."""
    if not run.metrics:
        return []
    return [*_learning(run), *_reward_errors(run), *_survival(run), *_machinery(run), *_memory(run)]


def _learning(run: RunView) -> list[Picture]:
    rewards = "mean per rollout; parts are weighted, exploit and explore before weighting"
    return [
        _picture("Reward by part", rewards, lambda ax: _reward_parts(ax, run)),
        _picture("Held-out accuracy", "problems never trained on; task reward only", lambda ax: _held_out(ax, run)),
        _picture(
            "Answer length and truncation",
            "tokens per answer, and the share cut off at the limit",
            lambda ax: _two_axes(ax, run, "completion_tokens_mean", "truncated_share"),
        ),
        _picture(
            "Entropy and gradient",
            "policy entropy per token in nats, gradient norm",
            lambda ax: _two_axes(ax, run, "entropy", "grad_norm"),
        ),
    ]


def _machinery(run: RunView) -> list[Picture]:
    return [
        _picture(
            "Lag",
            "policy version at the update minus version at the first token",
            lambda ax: _curves(ax, run, ["lag_mean", "lag_max"]),
        ),
        _picture(
            "Learner against engine",
            "mean and 99th percentile of |log p learner - log p engine| on trained tokens",
            lambda ax: _curves(ax, run, ["mismatch_mean", "mismatch_p99"]),
        ),
        _picture(
            "Where a step's time goes",
            "seconds per update: waiting for rollouts, for memory, updating",
            lambda ax: _times(ax, run),
        ),
    ]


def _memory(run: RunView) -> list[Picture]:
    changes = (
        "share of groups whose advantages the bonus changed, of those where it may act; its share of the squared "
        "advantage, there and where the task gives a signal"
    )
    return [
        _picture("What memory changes", changes, lambda ax: _memory_effect(ax, run)),
        _picture(
            "Spread of the intrinsic rewards",
            "standard deviation within a group, mean over the groups where memory may act",
            lambda ax: _spreads(ax, run),
        ),
        _picture(
            "Memory growth",
            "episodes and questions stored",
            lambda ax: _curves(ax, run, ["memory_episodes", "memory_queries"]),
        ),
    ]


def _reward_errors(run: RunView) -> list[Picture]:
    """Where something failed."""
    names, shares = list(error_shares(run.metrics)), run.parts("reward_errors")
    if not names:
        return []

    def draw(axes: Axes) -> None:
        for name in names:
            _plot(axes, shares[name], name)
        axes.set_ylim(0, 1)

    says = "share of rollouts over which the scorer failed (the answer counts as wrong) or a reward part (it counts 0 there)"
    return [_picture("What failed in scoring", says, draw)]


def _survival(run: RunView) -> list[Picture]:
    """Of the updates that say so: a run that an older commit began does not from its first one on."""
    if not run.series("merged_survival"):
        return []
    says = (
        "share of the adapter that acts in the weights that sample (1: added beside them, nothing is lost), and that "
        "would act in bfloat16 weights with the adapter merged in"
    )
    return [
        _picture("What acts of the adapter", says, lambda ax: _curves(ax, run, ["sampled_survival", "merged_survival"]))
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


def _plot(axes: Axes, of: Series, label: str, style: str = "") -> None:
    axes.plot(of.steps_N, of.values_N, style, label=label)


def _curves(axes: Axes, run: RunView, names: Sequence[str]) -> None:
    for name in names:
        _plot(axes, run.series(name), name.replace("_", " "))


def _two_axes(axes: Axes, run: RunView, left: str, right: str) -> None:
    _curves(axes, run, [left])
    other, of = axes.twinx(), run.series(right)
    other.plot(of.steps_N, of.values_N, color="tab:orange")
    other.set_ylabel(right.replace("_", " "), color="tab:orange")


def _reward_parts(axes: Axes, run: RunView) -> None:
    parts = run.parts("reward_parts")
    for name in sorted(run.metrics[-1]["reward_parts"]):
        _plot(axes, parts[name], name)
    _curves(axes, run, ["intrinsic_exploit", "intrinsic_explore"])
    _plot(axes, run.series("reward"), "reward (mix)", "k--")


def _held_out(axes: Axes, run: RunView) -> None:
    for curve in run.eval_curves():
        what = f"pass@{curve.k}" if curve.k else "greedy"
        _plot(axes, curve.points, f"{what}, {curve.max_new_tokens} tokens", "o-")
    axes.set_ylim(0, 1)


def _times(axes: Axes, run: RunView) -> None:
    names = ["wait_rollouts_s", "wait_memory_s", "update_s", "publish_s"]
    axes.stackplot(
        run.series(names[0]).steps_N,
        [run.series(name).values_N for name in names],
        labels=[name.removesuffix("_s").replace("_", " ") for name in names],
    )


def _memory_effect(axes: Axes, run: RunView) -> None:
    """Runs of 57c9e8c recorded none of it."""
    _curves(axes, run, ["bonus_changed_share", "bonus_advantage_share", "bonus_signal_share"])
    axes.set_ylim(0, 1)


def _spreads(axes: Axes, run: RunView) -> None:
    _curves(axes, run, ["exploit_std", "explore_std", "bonus_std"])
