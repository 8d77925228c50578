"""Autoscale, acting: after each update it asks `scaling_policy.wanted_workers` and sets the fleet's first pool."""

from collections import deque

from cluster.config.cluster import ClusterSettings
from cluster.flow.fleet import Fleet
from cluster.flow.scaling_policy import Waits, wanted_workers
from cluster.flow.worker_targets import WorkerTargets
from cluster.record.events.workers import Autoscaled, AutoscaleRefused
from cluster.record.recorder import Recorder
from contracts.errors import ConfigError


class Autoscaler:
    """Remembers the waits of one window. Does nothing unless cluster.autoscale.enabled."""

    def __init__(self, settings: ClusterSettings, fleet: Fleet, targets: WorkerTargets, recorder: Recorder) -> None:
        self._settings, self._fleet, self._targets, self._recorder = settings, fleet, targets, recorder
        self._waits: deque[Waits] = deque(maxlen=settings.autoscale.window_updates)
        self._last_scaled = 0

    def after_update(self, waits: Waits) -> None:
        self._waits.append(waits)
        if not self._settings.autoscale.enabled:
            return
        decision = wanted_workers(self._waits, self._targets.total, self._last_scaled, self._settings.autoscale)
        first, now = self._targets.first, self._targets.by_pool
        # The first pool takes the change, as far as it can.
        of_first = max(0, max(decision.workers, self._settings.min_workers) - self._targets.total + now[first])
        if of_first != now[first]:
            self._last_scaled = waits.step
            try:
                self._fleet.scale(of_first, first)
            except ConfigError as error:  # no room for one more: the run goes on with those it has
                self._recorder.event(AutoscaleRefused(decision.workers, str(error)))
            else:
                self._recorder.event(Autoscaled(decision.workers, decision.reason))
