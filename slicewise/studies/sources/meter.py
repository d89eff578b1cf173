"""Progress of transfers: bytes and files, from any thread, not more often than a reader can follow."""

from __future__ import annotations

import threading
import time

from slicewise.studies.dataset import Progress
from slicewise.studies.sources.space import as_size

EVERY_S = 0.5
MB = 10**6


class Meter:
    """Counts what was moved and tells it as (text, MB done, MB in all).

    Args:
        progress: Told; None: nobody is.
        name: Of the source.
        total_bytes: To be moved, what is there already included.
        total_files: Likewise.
    """

    def __init__(self, progress: Progress | None, name: str, total_bytes: int, total_files: int) -> None:
        self._progress = progress
        self._name = name
        self._total = (total_bytes, total_files)
        self._bytes = self._files = self._fresh = 0
        self._lock = threading.Lock()
        self._start = self._last = time.monotonic()

    def begin(self, n_bytes: int = 0, n_files: int = 0) -> None:
        """Tell the first state: what was there before."""
        with self._lock:
            self._bytes, self._files = n_bytes, n_files
            self._tell()

    def add(self, n_bytes: int, n_files: int = 0) -> None:
        """Count what was just moved; a negative number takes back what has to be moved again."""
        with self._lock:
            self._bytes += n_bytes
            self._fresh += n_bytes
            self._files += n_files
            now = time.monotonic()
            if now - self._last >= EVERY_S:
                self._last = now
                self._tell()

    def finish(self) -> None:
        """Tell the last state, whenever the one before was told."""
        with self._lock:
            self._tell()

    def _tell(self) -> None:
        if self._progress is None:
            return
        total_bytes, total_files = self._total
        seconds = time.monotonic() - self._start
        rate = f", {as_size(self._fresh / seconds)}/s" if self._fresh > 0 and seconds > EVERY_S else ""
        text = f"{self._name}: {self._files} of {total_files} files, "
        text += f"{as_size(self._bytes)} of {as_size(total_bytes)}{rate}"
        whole = self._bytes >= total_bytes
        total = max(1, -(-total_bytes // MB))
        self._progress(text, total if whole else min(self._bytes // MB, total - 1), total)
