"""One destination of notices: a bounded queue and a daemon thread, so that one that hangs holds up no other."""

import threading
from collections import deque
from collections.abc import Callable

from cluster.watch.notify_hooks import Hook, reason

QUEUE_EVENTS = 100
_IDLE_S = 60.0


class Destination:
    """name: the setting, such as notify.urls[0]. failed(name, event, reason): called for each event that was not taken,
    from any thread. `dropped`: events that found the queue full, came after `finish`, or were left at `abandon`."""

    def __init__(self, name: str, hook: Hook, failed: Callable[[str, str, str], None]) -> None:
        self._name, self._hook, self._report = name, hook, failed
        self._changed = threading.Condition()  # guards everything below
        self._queue: deque[tuple[str, bytes]] = deque()
        self._under_way: str | None = None
        self._closing = False
        self.dropped = 0
        self._thread = threading.Thread(target=self._deliver_all, name=f"memr-{name}", daemon=True)
        self._thread.start()

    def put(self, notice: str, payload: bytes) -> None:
        """Queues an event's JSON. Returns at once."""
        with self._changed:
            if not self._closing and len(self._queue) < QUEUE_EVENTS:
                self._queue.append((notice, payload))
                self._changed.notify()
                return
            self.dropped += 1
            why = "the run was over" if self._closing else f"{QUEUE_EVENTS} others were waiting for it"
        self._report(self._name, notice, why)

    def finish(self) -> None:
        """Takes no further event; the thread ends once none is left."""
        with self._changed:
            self._closing = True
            self._changed.notify()

    def wait(self, within_s: float) -> None:
        """For the end of the thread, at most so many seconds."""
        self._thread.join(within_s)

    def abandon(self) -> None:
        """Ends what is not done by now, and reports it."""
        with self._changed:
            left = [notice for notice, _ in self._queue]
            self._queue.clear()
            self.dropped += len(left)
            under_way = [] if self._under_way is None else [self._under_way]
        for notice in under_way + left:
            self._report(self._name, notice, "it had not by the end of the run")
        self._hook.stop()

    def _deliver_all(self) -> None:
        """Waits for events; ends once `finish` was called and nothing is left."""
        while (event := self._next()) is not None:
            try:
                self._hook.deliver(*event)
            except Exception as error:  # noqa: BLE001  the edge: a hook's failure must not end the thread
                self._report(self._name, event[0], reason(error))

    def _next(self) -> tuple[str, bytes] | None:
        with self._changed:
            self._under_way = None
            while not self._queue and not self._closing:
                self._changed.wait(_IDLE_S)
            if not self._queue:
                return None
            event = self._queue.popleft()
            self._under_way = event[0]
            return event
