"""A private folder for what callers upload: one folder inside it per request, gone when the request is done."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

PREFIX = "slicewise-uploads-"
# A folder this young may not have been locked yet.
FRESH_S = 60.0

log = logging.getLogger(__name__)


class Workplace:
    """Folders that only this process's user can read."""

    def __init__(self) -> None:
        self._root: Path | None = None
        self._lock = -1

    def open(self) -> None:
        """Make the private folder, and remove those that a killed process left."""
        # Resolved, so that its name in the library's messages is the one we look for.
        self._root = Path(tempfile.mkdtemp(prefix=PREFIX)).resolve()
        self._lock = os.open(self._root, os.O_RDONLY)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        for other in self._root.parent.glob(f"{PREFIX}*"):
            if other != self._root:
                _remove_if_left(other)

    async def close(self) -> None:
        """Remove it with all that is in it."""
        if self._root is not None:
            await remove(self._root)
            os.close(self._lock)
            self._root = None

    def new_folder(self) -> Path:
        """An empty folder of an unguessable name."""
        if self._root is None:
            raise RuntimeError("the workplace is not open")
        folder = self._root / secrets.token_hex(8)
        folder.mkdir(mode=0o700)
        return folder

    @asynccontextmanager
    async def folder(self) -> AsyncIterator[Path]:
        """An empty folder, removed at the end, also after an error."""
        folder = self.new_folder()
        try:
            yield folder
        finally:
            await remove(folder)


def _remove_if_left(folder: Path) -> None:
    """Remove another process's folder once nobody holds its lock; a kill leaves patients' scans behind."""
    try:
        status = folder.lstat()
        if (
            not stat.S_ISDIR(status.st_mode)
            or status.st_uid != os.getuid()
            or time.time() - status.st_mtime < FRESH_S
        ):
            return
        handle = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:  # gone meanwhile
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
        log.info("removed what a killed process left of its uploads")
    except BlockingIOError:
        log.debug("%s is in use", folder.name)
    finally:
        os.close(handle)


async def remove(folder: Path) -> None:
    """Remove a folder, beside the event loop."""
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
