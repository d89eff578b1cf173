"""Back-pressure: so many requests at the model server, so many waiting for so long, and no more."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from serving.gateway.metrics import IN_FLIGHT, REJECTED, WAITING
from serving.status import BusyError


class Admission:
    """A bounded number in flight, a bounded queue before it, and a bounded wait in that.

    Args:
        in_flight: How many at once.
        waiting: How many may wait.
        wait_s: How long each may wait.
    """

    def __init__(self, in_flight: int, waiting: int, wait_s: float) -> None:
        self._most = in_flight
        self._most_waiting = waiting
        self._wait_s = wait_s
        self._active = 0
        self._turns: deque[asyncio.Future[None]] = deque()

    @asynccontextmanager
    async def admit(self, deadline_s: float) -> AsyncIterator[None]:
        """Hold one place.

        Args:
            deadline_s: Longest wait that makes sense to the caller.

        Raises:
            BusyError: The queue is full, or the wait was too long.
        """
        await self._enter(min(deadline_s, self._wait_s))
        IN_FLIGHT.inc()
        try:
            yield
        finally:
            IN_FLIGHT.dec()
            self._leave()

    async def _enter(self, wait_s: float) -> None:
        if self._active < self._most:
            self._active += 1
            return
        if len(self._turns) >= self._most_waiting:
            raise _refusal("queue_full", "too many requests wait already")
        turn = asyncio.get_running_loop().create_future()
        self._turns.append(turn)
        try:
            with WAITING.track_inprogress():
                async with asyncio.timeout(wait_s):
                    await turn
        except BaseException as error:
            if turn in self._turns:
                self._turns.remove(turn)
            elif not turn.cancelled():  # the place came in the very moment of giving up
                self._leave()
            if isinstance(error, TimeoutError):
                raise _refusal("waited", f"no turn within {wait_s:.0f} s") from error
            raise

    def _leave(self) -> None:
        """Hand the place to who waits longest, or give it back."""
        while self._turns:
            turn = self._turns.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._active -= 1


def _refusal(reason: str, message: str) -> BusyError:
    REJECTED.labels(reason).inc()
    return BusyError(message, "send fewer requests at once, or try again later")
