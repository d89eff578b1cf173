"""Keeps a failing tracker away from training."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from slicewise.errors import ConfigError
from slicewise.training.tracking.base import Tracker

logger = logging.getLogger(__name__)
RETRY_S = 60.0
# A long stage's steps while a server is away; older ones are then missing in that tracker, not in the plain file.
WAITING = 100_000

Event = tuple[str, int, Mapping[str, Any]]


class Guard(Tracker):
    """Hands figures on to a tracker; if that fails, training goes on and the figures wait.

    The first failure is told, once. Then it is tried again at the ends of epochs, at most once a minute, and at the
    end of the stage: a server that comes back gets what it has missed.

    Args:
        name: The tracker's, for the log.
        start: Opens the tracker.
        cure: What to do if it fails.

    Raises:
        ConfigError: A package or a key is missing: told before any training is done.
    """

    def __init__(self, name: str, start: Callable[[], Tracker], cure: str) -> None:
        self._name, self._start, self._cure = name, start, cure
        self._tracker: Tracker | None = None
        self._waiting: deque[Event] = deque(maxlen=WAITING)
        self._told = False
        self._failed_at: float | None = None
        self._attempt(self._catch_up)

    def step(self, step: int, figures: Mapping[str, float]) -> None:
        """Hand on, or keep for later."""
        self._waiting.append(("step", step, dict(figures)))
        if self._failed_at is None:
            self._attempt(self._catch_up)

    def epoch(self, epoch: int, figures: Mapping[str, float | None]) -> None:
        """Hand on, or keep for later; a tracker that failed is tried again."""
        self._waiting.append(("epoch", epoch, dict(figures)))
        if self._failed_at is None or time.monotonic() - self._failed_at >= RETRY_S:
            self._attempt(self._catch_up)

    def close(self, status: str) -> None:
        """Hand on what is left and close the tracker."""

        def finish() -> None:
            tracker = self._catch_up()
            tracker.close(status)

        self._attempt(finish)

    def _catch_up(self) -> Tracker:
        """Open the tracker if need be and hand on what waits, oldest first."""
        self._tracker = tracker = self._tracker or self._start()
        while self._waiting:
            kind, number, figures = self._waiting[0]
            (tracker.step if kind == "step" else tracker.epoch)(number, figures)
            self._waiting.popleft()
        return tracker

    def _attempt(self, work: Callable[[], object]) -> None:
        try:
            work()
        except ConfigError:
            raise
        # Foreign code over a network and a disk: what it may raise is no closed list, and none is worth a training.
        except Exception as error:  # noqa: BLE001
            self._failed_at = time.monotonic()
            self._tell(error)
        else:
            self._failed_at = None

    def _tell(self, error: Exception) -> None:
        if self._told:
            logger.debug("the tracker %s still fails", self._name, exc_info=error)
            return
        self._told = True
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        text = "the tracker %s fails, training goes on without it: %s — %s; all figures are in the plain file"
        logger.warning(text, self._name, reason, self._cure)
