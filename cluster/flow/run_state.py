"""Where a run stands: the few facts that its stages share. One event loop owns them."""

from dataclasses import dataclass, field

from cluster.flow.change_signal import Signal


@dataclass(slots=True, eq=False)
class RunState:
    """step: updates booked. updating: the learner has a batch. stopping: `Controller.stop` was called. evaluated: the last
    evaluation is done. restored: where an earlier process stood has been reached. changed: given after each change of state."""

    step: int = 0
    updating: bool = False
    stopping: bool = False
    evaluated: bool = False
    restored: bool = False
    changed: Signal = field(default_factory=Signal)
