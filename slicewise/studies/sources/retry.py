"""Trying again: which failures may pass, and how long to wait."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from typing import TypeVar

from slicewise.config import DownloadConfig
from slicewise.errors import SourceError

logger = logging.getLogger(__name__)

T = TypeVar("T")
MAX_PAUSE_S = 20.0
CURE = "check the network and call the same command again: it goes on from what is on disk"


class TransientError(Exception):
    """A failure that may pass: a dropped connection, a timeout, a server that is busy."""


class ChangedError(Exception):
    """The file is another one now than when it was listed."""


class StoppedError(Exception):
    """Another part of the same download has failed, so this one need not go on."""


class Patience:
    """Counts failures in a row and waits between them: exponential backoff with jitter.

    Args:
        config: ``retries`` and ``backoff_s``.
        what: For messages; no address with a signature or a password.
        stop: Set by others to end the waiting.
    """

    def __init__(self, config: DownloadConfig, what: str, stop: threading.Event | None = None) -> None:
        self._config = config
        self._what = what
        self._stop = stop or threading.Event()
        self._failures = 0

    def reset(self) -> None:
        """Something came: what failed before no longer counts."""
        self._failures = 0

    def wait(self, error: TransientError) -> None:
        """Wait before the next try.

        Raises:
            SourceError: There were enough tries; names what failed.
            StoppedError: The download was stopped meanwhile.
        """
        self._failures += 1
        if self._failures > self._config.retries:
            tries = f"{self._failures} tries" if self._failures > 1 else "1 try"
            raise SourceError(f"{self._what} failed after {tries}: {error}", CURE) from error
        pause = min(MAX_PAUSE_S, self._config.backoff_s * 2 ** (self._failures - 1))
        # Jitter: a server that comes back is not met by all its clients at once.
        pause *= random.uniform(0.5, 1.0)
        logger.info("%s: %s; trying again in %.1f s", self._what, error, pause)
        if self._stop.wait(pause):
            raise StoppedError


def retried(call: Callable[[], T], config: DownloadConfig, what: str) -> T:
    """Call until it answers; ``call`` raises ``TransientError`` where another try may help.

    Raises:
        SourceError: It has failed ``config.retries`` times more than once.
    """
    patience = Patience(config, what)
    while True:
        try:
            return call()
        except TransientError as error:
            patience.wait(error)
