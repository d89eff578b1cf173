"""Locks between processes."""

from __future__ import annotations

import fcntl
from typing import IO, Any

from slicewise.errors import RunLockedError


def hold_alone(handle: IO[Any], busy: str) -> None:
    """Lock an open file for as long as it stays open, without waiting; a killed process lets go of it by itself.

    Args:
        handle: The file.
        busy: What to say where another process holds it.

    Raises:
        RunLockedError: Another process holds it.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise RunLockedError(busy, "wait for it, or choose another --out") from error
