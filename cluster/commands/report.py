"""`memr report`: one self-contained HTML file about a run: pictures, numbers, transcripts with their neighbours."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, select_autoescape

from cluster.commands.report_pictures import pictures_of
from cluster.commands.summary import after_label, before_after, state_of
from cluster.launch.plan import make_plan, plan_rows
from cluster.record.incidents import incident_lines
from cluster.record.memory_effect import effect_text, memory_effect
from cluster.record.run_view import RunView, read_run
from cluster.watch.alarms.reward_errors import error_shares, errors_text
from contracts.errors import DataError
from contracts.rollout import ScoredGroup
from contracts.verdict import Scored
from storage.arrow import read_groups

TEMPLATE = Path(__file__).with_name("report.html.j2")
NUM_TRANSCRIPTS = 3


def write_report(run_path: Path) -> Path:
    """Works on a live, finished or copied run; returns the file written. Raises DataError where it cannot be."""
    run = read_run(run_path)
    environment = Environment(loader=FileSystemLoader(TEMPLATE.parent), autoescape=select_autoescape(default=True))
    html = environment.get_template(TEMPLATE.name).render(
        run=run,
        state=state_of(run),
        incidents=incident_lines(run.incidents),
        plan=plan_rows(run.config, make_plan(run.config)),
        before_after=before_after(run),
        after_label=after_label(run),
        pictures=pictures_of(run),
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


def _memory_text(run: RunView) -> str | None:
    if not (run.config.memory.enabled and run.metrics):
        return None
    return effect_text(memory_effect(run.metrics), pays=run.config.memory.pays)


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
