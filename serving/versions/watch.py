"""Following a models folder: start what is new, swap the default, drain what is gone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from serving.gateway.backend import Backend
from serving.gateway.versions import VersionTable
from serving.versions.folder import fingerprint, read_current, version_numbers
from serving.versions.start import Running, start_server
from slicewise.config import ServeConfig
from slicewise.errors import BundleError, ServerError, SliceWiseError

POLL_S = 1.0
WARM_SIDE = 64
# Several servers side by side cannot have the same.
TORCHSERVE_PORTS = ("torchserve_port", "torchserve_grpc_port", "torchserve_metrics_port")

log = logging.getLogger(__name__)


class FolderWatcher:
    """Keeps a table of versions as its folder says.

    Args:
        folder: The models folder.
        config: The backend and its limits.
        work: Folder for archives and logs, one below it for each version.
        table: What is served.
        poll_s: How often to look.
    """

    def __init__(
        self, folder: Path, config: ServeConfig, work: Path, table: VersionTable, poll_s: float = POLL_S
    ) -> None:
        self._folder = folder
        self._config = config
        self._work = work
        self.table = table
        self._poll_s = poll_s
        self._running: dict[int, Running] = {}
        self._tried: dict[int, object] = {}
        self._reasons: dict[int, str] = {}
        self._starting: asyncio.Task[None] | None = None
        self._stopping: set[asyncio.Task[None]] = set()
        # The kernel ends a TorchServe with the thread that started it: this one stays.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="versions")

    async def run(self) -> None:
        """Follow the folder until cancelled; then stop every version."""
        try:
            while True:
                try:
                    self.follow()
                except SliceWiseError as error:
                    log.warning("%s", error)
                await asyncio.sleep(self._poll_s)
        finally:
            await self._stop_all()

    async def wait_served(self) -> None:
        """Wait until a default is served.

        Raises:
            ServerError: No version in the folder can be served.
        """
        while self.table.default is None:
            current, numbers = read_current(self._folder), version_numbers(self._folder)
            if current is not None and current not in numbers:
                raise ServerError(f"'current' names version {current}, which is not there", "name one that is")
            wanted = numbers if current is None else (current,)
            if wanted and all(self._is_refused(number) for number in wanted):
                told = "; ".join(f"version {number}: {self._reasons[number]}" for number in wanted)
                raise ServerError(f"nothing can be served: {told}", "add a good bundle, or name another version")
            await asyncio.sleep(self._poll_s / 10)

    def follow(self) -> None:
        """Bring the table one step closer to what the folder says now; starts at most one version at a time."""
        numbers = version_numbers(self._folder)
        for number, running in list(self._running.items()):
            if number not in numbers:
                log.info("version %d is gone from the folder: it drains", number)
                self._retire(number, self._config.timeout_s)
            elif not running.alive():
                log.error("version %d ended by itself: it is started again", number)
                self._retire(number, 0.0)
        self._forget(numbers)
        self._choose(numbers)
        if self._starting is None or self._starting.done():
            wanted = [number for number in reversed(numbers) if number not in self._running]
            wanted = [number for number in wanted if not self._is_refused(number)]
            current = read_current(self._folder)
            # The default first, then the newest.
            wanted.sort(key=lambda number: number != current)
            if wanted:
                self._starting = asyncio.create_task(self._start(wanted[0]))

    def _choose(self, numbers: tuple[int, ...]) -> None:
        """Point the default at what ``current`` says, or at the highest that is served where it says nothing."""
        current = read_current(self._folder)
        ready = [number for number in numbers if number in self._running]
        if current is None and ready:
            current = ready[-1]
        if current in ready and self.table.default != str(current):
            log.info("the default is version %d now (before: %s)", current, self.table.default)
            self.table.default = str(current)

    def _is_refused(self, number: int) -> bool:
        return self._tried.get(number) == fingerprint(self._folder, number)

    def _forget(self, numbers: tuple[int, ...]) -> None:
        for number in [number for number in self._tried if number not in numbers]:
            del self._tried[number]
            self.table.failures.pop(str(number), None)

    async def _start(self, number: int) -> None:
        """Verify, start and warm up one version; only then is it served."""
        tried = fingerprint(self._folder, number)
        loop = asyncio.get_running_loop()
        try:
            running = await loop.run_in_executor(self._thread, self._bring_up, number)
        except SliceWiseError as error:
            self._refuse(number, tried, error)
            return
        backend = running.connect()
        try:
            await warm_up(backend)
        except SliceWiseError as error:
            self._refuse(number, tried, error)
            await backend.close()
            await asyncio.to_thread(running.stop)
            return
        self._running[number] = running
        self.table.put(str(number), backend)
        log.info("version %d is served", number)
        self._choose(version_numbers(self._folder))

    def _bring_up(self, number: int) -> Running:
        config = self._config.model_copy(update=dict.fromkeys(TORCHSERVE_PORTS, 0))
        source, work = self._folder / str(number), self._work / f"version-{number}"
        work.mkdir(parents=True, exist_ok=True)
        running = start_server(source, config, work, str(number))
        try:
            running.wait_ready()
        except BaseException:
            running.stop()
            raise
        return running

    def _refuse(self, number: int, tried: object, error: SliceWiseError) -> None:
        log.error("version %d is not served: %s", number, error)
        self._tried[number] = tried
        self._reasons[number] = str(error)
        # The reason itself may name folders: it is in the log.
        reason = (
            "its files are damaged or no bundle" if isinstance(error, BundleError) else "its server did not start"
        )
        self.table.failures[str(number)] = f"{reason}; see the server's log"

    def _retire(self, number: int, drain_s: float) -> None:
        running = self._running.pop(number)
        # Taken out of the table now, at its first step; the rest may last.
        task = asyncio.create_task(self._drain(number, running, drain_s))
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)

    async def _drain(self, number: int, running: Running, drain_s: float) -> None:
        await self.table.remove(str(number), drain_s)
        await asyncio.to_thread(running.stop)
        log.info("version %d has stopped", number)

    async def _stop_all(self) -> None:
        if self._starting is not None:
            await asyncio.gather(self._starting, return_exceptions=True)
        await asyncio.gather(*self._stopping, return_exceptions=True)
        stops: list[Callable[[], None]] = [running.stop for running in self._running.values()]
        await asyncio.gather(*(asyncio.to_thread(stop) for stop in stops))
        self._thread.shutdown()


async def warm_up(backend: Backend) -> None:
    """Classify and segment a made-up slice: what answers this is ready.

    Raises:
        SliceWiseError: It does not answer.
    """
    ramp = np.arange(WARM_SIDE**2, dtype=np.float32).reshape(1, 1, WARM_SIDE, WARM_SIDE)
    await backend.infer({"image": ramp}, {"tasks": "classify,segment"})
