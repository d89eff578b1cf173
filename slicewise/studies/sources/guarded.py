"""A stream that keeps ``tarfile`` from reading, or skipping, more than is good."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from typing import IO

# No header of a real archive is longer; tarfile reads headers whole, however long they say they are.
MAX_READ = 16 << 20


class GuardedStream(io.RawIOBase):
    """A stream that tells how much was read, also when skipped over, and gives no huge piece at once."""

    def __init__(self, stream: IO[bytes], counted: Callable[[int], None]) -> None:
        self._stream = stream
        self._counted = counted
        self._furthest = 0

    def read(self, size: int = -1) -> bytes:
        """Read at most ``MAX_READ`` bytes.

        Raises:
            tarfile.ReadError: More was asked for.
        """
        if size < 0 or size > MAX_READ:
            raise tarfile.ReadError(f"a header of {size} bytes")
        data = self._stream.read(size)
        self._note()
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place."""
        # Compressed streams decompress what they skip; by steps, so that the counting can stop it.
        while whence == io.SEEK_SET and offset > self._stream.tell() + MAX_READ:
            before = self._stream.tell()
            if self._stream.seek(before + MAX_READ) == before:
                break
            self._note()
        position = self._stream.seek(offset, whence)
        self._note()
        return position

    def tell(self) -> int:
        """Where it is."""
        return self._stream.tell()

    def seekable(self) -> bool:
        """It is."""
        return True

    def readable(self) -> bool:
        """It is."""
        return True

    def close(self) -> None:
        """Close what is below, too."""
        self._stream.close()
        super().close()

    def _note(self) -> None:
        position = self._stream.tell()
        if position > self._furthest:
            self._counted(position - self._furthest)
            self._furthest = position
