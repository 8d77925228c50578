"""What an alarm says and what it asks for. Deciding only: the controller acts."""

from dataclasses import dataclass
from enum import StrEnum

from cluster.config.alarms import AlarmAction


class Action(StrEnum):
    """WARN: say so and go on. PAUSE: write a checkpoint and stop. ROLL_BACK: go on from an earlier checkpoint."""

    WARN = "warn"
    PAUSE = "pause"
    ROLL_BACK = "roll_back"


@dataclass(frozen=True, slots=True)
class Alarm:
    """name: also the key of its action in `[alarms]`. headline: what was measured, the limit, and the knob to turn."""

    name: str
    action: Action
    headline: str


def raised(name: str, action: AlarmAction, headline: str) -> Alarm | None:
    """None where the user turned the alarm off."""
    return None if action == "off" else Alarm(name, Action(action), headline)
