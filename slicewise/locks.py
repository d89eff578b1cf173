"""Locks between processes."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
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


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Wait until no other process is in such a block with the same file, which is made and stays.

    Args:
        path: Of the file; its folder is there.
    """
    with path.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
