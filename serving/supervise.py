"""Starting TorchServe again when it ends by itself, on its ports, so that the gateway finds it again."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor

from serving.torchserve.server import TorchServeProcess
from slicewise.errors import SliceWiseError

MOST_RESTARTS, WITHIN_S = 5, 600.0
WATCH_S = 0.25

log = logging.getLogger(__name__)


class Supervisor:
    """Watches one TorchServe that has been started.

    Args:
        process: TorchServe.
    """

    def __init__(self, process: TorchServeProcess) -> None:
        self._process = process
        self._restarts: deque[float] = deque(maxlen=MOST_RESTARTS)
        self._given_up = False
        # The kernel ends a TorchServe with the thread that started it: this one stays.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="supervisor")

    def hopeful(self) -> bool:
        """Whether it runs, or may run again."""
        return not self._given_up

    async def run(self) -> None:
        """Watch until cancelled; requests meanwhile are refused with 503, or retried where that is safe."""
        loop = asyncio.get_running_loop()
        try:
            while not self._given_up:
                await asyncio.sleep(WATCH_S)
                if not self._process.is_alive():
                    await loop.run_in_executor(self._thread, self._again)
        finally:
            self._thread.shutdown(cancel_futures=True)

    def _again(self) -> None:
        now = time.monotonic()
        if len(self._restarts) == MOST_RESTARTS and now - self._restarts[0] < WITHIN_S:
            log.error("TorchServe ended %d times in a short while: no more restarts", MOST_RESTARTS + 1)
            self._given_up = True
            return
        self._restarts.append(now)
        log.error("TorchServe ended by itself: it is started again")
        try:
            self._process.restart()
            self._process.wait_ready()
            log.info("TorchServe is back after %.1f s", time.monotonic() - now)
        except SliceWiseError as error:
            log.error("%s", error)
            self._process.stop()
