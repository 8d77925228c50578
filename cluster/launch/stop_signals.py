"""SIGINT, SIGTERM and SIGUSR1 while a run starts and while it goes on."""

import asyncio
import signal

from cluster.flow.controller import Controller
from cluster.recovery.run_process import asked_to_end


class StopSignals:
    """SIGINT, SIGTERM and SIGUSR1 ask the controller to stop; until it has taken the run up they end the start, after which
    the run is what it was before."""

    def __init__(self) -> None:
        self.controller: Controller | None = None
        self.seen = False
        self._main = asyncio.current_task()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            loop.add_signal_handler(number, self._ask)
        if asked_to_end():
            self._ask()

    def _ask(self) -> None:
        self.seen = True
        if self.controller is not None and self.controller.restored:
            self.controller.stop()
        elif self._main is not None:
            self._main.cancel()
