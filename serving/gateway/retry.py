"""Trying again: few times, with growing pauses that differ between callers."""

from __future__ import annotations

import asyncio
import random

from serving.gateway.metrics import RETRIES
from serving.status import BackendError

TIMES = 4
FIRST_S = 0.1


class Retries:
    """What is left of one request's tries."""

    def __init__(self) -> None:
        self._done = 0

    async def again(self, reason: BackendError, most: int = TIMES) -> None:
        """Wait before the next try.

        Args:
            reason: What to raise when there is no next one.
            most: Tries after the first that make sense for this reason.

        Raises:
            BackendError: The tries are used up.
        """
        if self._done >= most:
            raise reason
        pause_s = FIRST_S * 2**self._done
        self._done += 1
        RETRIES.inc()
        # Spread over the pause, or all that failed together would come again together.
        await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
