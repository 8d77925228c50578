"""When which version is evaluated: before training, every `eval.every_updates` updates beside it, and after the last one.

resume (what an earlier life left) -> after_update ... -> to_the_end: all that was begun, then the last version
"""

from collections.abc import Callable

from cluster.config.run_config import RunConfig
from cluster.flow.evaluator import Evaluator
from cluster.flow.lease_outcomes import BY_HAND, LeaseOutcomes
from cluster.record.adapter_registry import AdapterRegistry


class EvaluationSchedule:
    """Begins evaluations when they are due and waits for the last ones."""

    def __init__(
        self, config: RunConfig, registry: AdapterRegistry, evaluator: Evaluator, outcomes: LeaseOutcomes
    ) -> None:
        self._last, self._every = config.learner.num_updates, config.eval.every_updates
        self._registry, self._evaluator, self._outcomes = registry, evaluator, outcomes

    def resume(self, step: int) -> None:
        """Begins what is due up to `step`, of an earlier life's versions too, from their folders."""
        gone = []
        for due in self._due(step):
            if self._registry.reload(due):
                self._evaluator.begin(due, due, at_edge=due == 0)
            elif self._registry.given_up(due):
                if self._evaluator.missing(due):
                    self._outcomes.left_out(due, f"no worker could prove version {due}: it is not evaluated; {BY_HAND}")
            elif self._evaluator.missing(due):
                gone.append(due)
        if gone:  # one incident: another eval.every_updates than before names many
            self._outcomes.left_out(
                gone[0], f"not evaluated, as adapters/ has them no more: versions {', '.join(map(str, gone))}"
            )

    def after_update(self, step: int) -> None:
        if self._every and step % self._every == 0 and 0 < step < self._last:
            self._evaluator.begin(self._registry.newest, step, at_edge=False)

    async def to_the_end(self, step: int, stopping: Callable[[], bool]) -> bool:
        """What is under way, then the last evaluation. False where the run is stopping; raises as Evaluator.all_done."""
        if not await self._evaluator.all_done(stopping):
            return False
        self._evaluator.begin(self._registry.newest, step, at_edge=True)
        return await self._evaluator.all_done(stopping)

    def left_by_an_earlier_life(self, step: int) -> set[int]:
        """Versions up to `step` whose adapters `resume` will need."""
        return {due for due in self._due(step) if self._evaluator.missing(due)}

    def _due(self, step: int) -> list[int]:
        """In their order, but the last of the run."""
        every = self._every
        return [
            due for due in dict.fromkeys((0, *range(every or self._last, step + 1, every or 1))) if due < self._last
        ]
