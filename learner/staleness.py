"""The first stage of an update: refuse groups that are too old, and groups from the future.

The controller paces admission so that this never fires; it is checked here because here
the data is used.
"""

from collections.abc import Sequence

from contracts.errors import StaleGroupError
from contracts.rollout import ScoredGroup


def reject_stale(groups: Sequence[ScoredGroup], policy_version: int, max_policy_lag: int) -> None:
    """Raises StaleGroupError for a lag above the limit, ValueError for no groups or a version not yet published."""
    if not groups:
        raise ValueError("an update needs at least one group; the batch is empty")
    for scored in groups:
        group = scored.group
        lag = policy_version - group.policy_version
        if lag > max_policy_lag:
            raise StaleGroupError(
                f"learner at v{policy_version} got group {group.group_id} sampled by v{group.policy_version}: lag "
                f"{lag}, limit {max_policy_lag}. Raise learner.max_policy_lag or lower cluster.groups_per_batch."
            )
        if lag < 0:
            raise ValueError(
                f"learner at v{policy_version} got group {group.group_id} sampled by v{group.policy_version}, which it "
                "has not published; restore the learner from the checkpoint that belongs to this run"
            )
