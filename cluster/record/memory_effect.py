"""What memory's bonus did to the advantages, out of lines of metrics.jsonl. Pure.

    metrics.jsonl (StepReport's bonus_* and *_std) --memory_effect--> MemoryEffect -> console, status, inspect, report, alarms

Memory may act on a group that it scored in time, while the bonus is on (warm-up, annealing), where memory.where pays an answer
that another can be compared with, and which has a wrong answer (or memory.all_correct_groups lets it be). Of other groups
nothing is counted here, and people are told how many there were. Means over a window weigh an update by its groups where memory
may act. Runs of commit 57c9e8c did not write these fields.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_LEFT_OUT = "too few answers that memory.where pays, late, or the bonus was off"
WINDOW_UPDATES = 20
"""What people are shown is over as many updates."""


@dataclass(frozen=True, slots=True)
class MemoryEffect:
    """Fields as in StepReport, over several updates. num_groups: of all that were trained on."""

    updates: int
    num_groups: int
    bonus_groups: int
    bonus_signal_groups: int
    exploit_std: float
    explore_std: float
    bonus_std: float
    bonus_changed_share: float
    bonus_advantage_share: float
    bonus_signal_share: float


def memory_effect(lines: Sequence[Mapping[str, Any]]) -> MemoryEffect | None:
    """None where no line carries the fields."""
    known = [line for line in lines if "bonus_groups" in line]
    if not known:
        return None
    return MemoryEffect(
        updates=len(known),
        num_groups=sum(line.get("num_groups", 0) for line in known),
        bonus_groups=sum(line["bonus_groups"] for line in known),
        bonus_signal_groups=sum(line["bonus_signal_groups"] for line in known),
        exploit_std=_mean(known, "exploit_std"),
        explore_std=_mean(known, "explore_std"),
        bonus_std=_mean(known, "bonus_std"),
        bonus_changed_share=_mean(known, "bonus_changed_share"),
        bonus_advantage_share=_mean(known, "bonus_advantage_share"),
        bonus_signal_share=_mean(known, "bonus_signal_share", weight="bonus_signal_groups"),
    )


def effect_text(effect: MemoryEffect | None, *, pays: bool = True) -> str:
    """One line for people. pays: `MemorySettings.pays` of the run."""
    if not pays:
        return (
            "memory keeps what was answered and pays no bonus: the update is plain GRPO's (to pay one, start another run with "
            "--set memory.profile=memr --set run.name=NAME)"
        )
    if effect is None:
        return "what memory changes was not recorded (a run of commit 57c9e8c or before)"
    if not effect.bonus_groups:
        return f"memory had no group to act on among the {effect.num_groups} of {effect.updates} updates: {_LEFT_OUT}"
    others = effect.num_groups - effect.bonus_groups
    left_out = f" ({others} left out: {_LEFT_OUT})" if others > 0 else ""
    return (
        f"in {effect.updates} updates memory might act on {effect.bonus_groups} of {effect.num_groups} groups{left_out} and "
        f"changed the advantages of {effect.bonus_changed_share:.0%} of those it might act on; "
        f"{effect.bonus_advantage_share:.1%} of their squared advantage is its own, "
        f"{effect.bonus_signal_share:.1%} where the task gives a signal. Standard deviation within groups: exploit "
        f"{effect.exploit_std:.3f}, explore {effect.explore_std:.3f}, bonus {effect.bonus_std:.3f}"
    )


def short_text(line: Mapping[str, Any]) -> str:
    """Of one update: the groups it moved among those where it may act, and its share of their squared advantage."""
    if "bonus_groups" not in line:
        return "-"
    groups, of_all = line["bonus_groups"], line.get("num_groups", 0)
    if not groups:
        return f"no bonus in any of {of_all} groups"
    changed = round(line["bonus_changed_share"] * groups)
    paid = f"pays in {groups} of {of_all} groups, " if groups < of_all else ""
    return f"{paid}changed {changed} of {groups} groups, {line['bonus_advantage_share']:.1%} of advantage"


def _mean(lines: Sequence[Mapping[str, Any]], name: str, weight: str = "bonus_groups") -> float:
    total = sum(line[weight] for line in lines)
    return sum(float(line[name]) * line[weight] for line in lines) / total if total else 0.0
