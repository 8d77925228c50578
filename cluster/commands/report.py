"""`memr report`: one self-contained HTML file about a run: pictures, numbers, transcripts with their neighbours."""

import base64
import io
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from jinja2 import Environment, FileSystemLoader, select_autoescape
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cluster.commands.summary import after_label, before_after, state_of
from cluster.launch.plan import make_plan, plan_rows
from cluster.record.incidents import incident_lines
from cluster.record.memory_effect import effect_text, memory_effect
from cluster.record.run_dir import RunRecord, read_run
from cluster.watch.alarms.reward_errors import error_shares, errors_text
from contracts.errors import DataError
from contracts.rollout import ScoredGroup
from contracts.verdict import Scored
from storage.arrow import read_groups

TEMPLATE = Path(__file__).with_name("report.html.j2")
NUM_TRANSCRIPTS = 3
matplotlib.use("agg")


@dataclass(frozen=True, slots=True)
class Picture:
    title: str
    says: str
    png_base64: str


def write_report(run_path: Path) -> Path:
    """Works on a live, finished or copied run; returns the file written. Raises DataError where it cannot be."""
    run = read_run(run_path)
    environment = Environment(loader=FileSystemLoader(TEMPLATE.parent), autoescape=select_autoescape(default=True))
    html = environment.get_template(TEMPLATE.name).render(
        run=run,
        state=state_of(run),
        incidents=incident_lines(run_path),
        plan=plan_rows(run.config, make_plan(run.config)),
        before_after=before_after(run),
        after_label=after_label(run),
        pictures=_pictures(run),
        transcripts=_transcripts(run_path),
        last=run.metrics[-1] if run.metrics else None,
        memory=_memory_text(run),
        reward_errors=errors_text(error_shares(run.metrics)),
    )
    path = run_path / "report.html"
    try:
        path.write_text(html, encoding="utf-8")
    except OSError as error:
        raise DataError(
            f"cannot write {path}: {error}. Copy the run to a writable place and report on the copy"
        ) from error
    return path


def _memory_text(run: RunRecord) -> str | None:
    if not (run.config.memory.enabled and run.metrics):
        return None
    return effect_text(memory_effect(run.metrics), pays=run.config.memory.pays)


def _pictures(run: RunRecord) -> list[Picture]:
    if not run.metrics:
        return []
    lines = run.metrics
    return [
        _picture(
            "Reward by part",
            "mean per rollout; parts are weighted, exploit and explore before weighting",
            lambda ax: _reward_parts(ax, lines),
        ),
        _picture(
            "Held-out accuracy",
            "problems never trained on; task reward only",
            lambda ax: _held_out(ax, run.evals),
        ),
        _picture(
            "Answer length and truncation",
            "tokens per answer, and the share cut off at the limit",
            lambda ax: _two_axes(ax, lines, "completion_tokens_mean", "truncated_share"),
        ),
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
        *_reward_errors(lines),
        *_survival(lines),
        _picture(
            "Where a step's time goes",
            "seconds per update: waiting for rollouts, for memory, updating",
            lambda ax: _times(ax, lines),
        ),
        _picture(
            "What memory changes",
            "share of groups whose advantages the bonus changed, of those where it may act; its share of the squared "
            "advantage, there and where the task gives a signal",
            lambda ax: _memory_effect(ax, lines),
        ),
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
        _picture(
            "Entropy and gradient",
            "policy entropy per token in nats, gradient norm",
            lambda ax: _two_axes(ax, lines, "entropy", "grad_norm"),
        ),
    ]


def _reward_errors(lines: Sequence[dict[str, Any]]) -> list[Picture]:
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


def _survival(lines: Sequence[dict[str, Any]]) -> list[Picture]:
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


def _steps(lines: Sequence[dict[str, Any]]) -> list[int]:
    return [line["step"] for line in lines]


def _curves(axes: Axes, lines: Sequence[dict[str, Any]], names: Sequence[str]) -> None:
    for name in names:
        axes.plot(_steps(lines), [line[name] for line in lines], label=name.replace("_", " "))


def _two_axes(axes: Axes, lines: Sequence[dict[str, Any]], left: str, right: str) -> None:
    _curves(axes, lines, [left])
    other = axes.twinx()
    other.plot(_steps(lines), [line[right] for line in lines], color="tab:orange")
    other.set_ylabel(right.replace("_", " "), color="tab:orange")


def _reward_parts(axes: Axes, lines: Sequence[dict[str, Any]]) -> None:
    for name in sorted(lines[-1]["reward_parts"]):
        axes.plot(_steps(lines), [line["reward_parts"].get(name, 0.0) for line in lines], label=name)
    _curves(axes, lines, ["intrinsic_exploit", "intrinsic_explore"])
    axes.plot(_steps(lines), [line["reward"] for line in lines], "k--", label="reward (mix)")


def _held_out(axes: Axes, evals: Sequence[dict[str, Any]]) -> None:
    for limit, k in sorted({(line["max_new_tokens"], line["k"] or 0) for line in evals}):
        chosen = [line for line in evals if (line["max_new_tokens"], line["k"] or 0) == (limit, k)]
        values = [line["pass_at_k"] if k else line["accuracy"] for line in chosen]
        label = f"pass@{k}" if k else "greedy"
        axes.plot([line["step"] for line in chosen], values, "o-", label=f"{label}, {limit} tokens")
    axes.set_ylim(0, 1)


def _times(axes: Axes, lines: Sequence[dict[str, Any]]) -> None:
    names = ["wait_rollouts_s", "wait_memory_s", "update_s", "publish_s"]
    axes.stackplot(
        _steps(lines),
        [[line[n] for line in lines] for n in names],
        labels=[n.removesuffix("_s").replace("_", " ") for n in names],
    )


def _memory_effect(axes: Axes, lines: Sequence[dict[str, Any]]) -> None:
    """Runs of 57c9e8c recorded none of it."""
    known = [line for line in lines if "bonus_groups" in line]
    _curves(axes, known, ["bonus_changed_share", "bonus_advantage_share", "bonus_signal_share"])
    axes.set_ylim(0, 1)


def _spreads(axes: Axes, lines: Sequence[dict[str, Any]]) -> None:
    _curves(axes, [line for line in lines if "bonus_groups" in line], ["exploit_std", "explore_std", "bonus_std"])


def _transcripts(run_path: Path) -> list[dict[str, Any]]:
    """A group from the start, the middle and the end of training."""
    files = sorted((run_path / "rollouts").glob("*-trained-*.parquet"))
    chosen = sorted({0, len(files) // 2, len(files) - 1}) if files else []
    found = []
    for path in [files[i] for i in chosen][:NUM_TRANSCRIPTS]:
        with suppress(DataError):  # torn by a power cut, until the run is resumed
            found.append(_transcript(path, read_groups(path)))
    return found


def _transcript(path: Path, groups: Sequence[ScoredGroup]) -> dict[str, Any]:
    scored = next((s for s in groups if len({r.correct for r in s.group.rollouts}) > 1), groups[0])
    rows = [
        {
            "text": rollout.text,
            "correct": rollout.correct,
            "finish": rollout.finish_reason.value,
            "parts": dict(rollout.verdict.parts)
            if isinstance(rollout.verdict, Scored)
            else {"invalid": rollout.verdict.reason},
            "exploit": float(scored.exploit_G[i]),
            "explore": float(scored.explore_G[i]),
            "bonus": float(scored.bonus_G[i]),
        }
        for i, rollout in enumerate(scored.group.rollouts[:4])
    ]
    return {"step": path.name.split("-")[1].lstrip("0"), "scored": scored, "rows": rows}
