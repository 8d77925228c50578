"""How many rollout workers of each pool a run shall have: what `memr scale`, autoscaling and losses change."""

from collections.abc import Collection, Mapping

from actors.config import ActorSettings


class WorkerTargets:
    """By pool, in the order of the configuration; the first pool is the one that autoscaling changes."""

    def __init__(self, actors: ActorSettings) -> None:
        counts = {pool.name: pool.num_workers for pool in actors.pools}
        self._workers = counts or {name: pool.num_workers for name, pool in actors.by_pool.items()}

    @property
    def total(self) -> int:
        return sum(self._workers.values())

    @property
    def by_pool(self) -> Mapping[str, int]:
        return dict(self._workers)

    @property
    def first(self) -> str:
        return next(iter(self._workers))

    @property
    def wanted(self) -> Collection[str]:
        """The pools that shall have a worker."""
        return [pool for pool, workers in self._workers.items() if workers]

    def set(self, pool: str, workers: int) -> None:
        self._workers[pool] = workers

    def lose_one(self, pool: str) -> None:
        self._workers[pool] -= 1
