"""Files on their way here: the parts that have come, and the files that are whole, remembered across kills.

A file in flight lies under another name in another folder; a line of its journal says which parts are on the
disk. When all are, it is checked and renamed, and the ledger of the source takes it in.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
from pathlib import Path
from typing import Any

from slicewise.files import CHUNK_BYTES
from slicewise.studies.sources.base import RemoteFile


class PartialFile:
    """A file of which some parts are here.

    Args:
        folder: For files in flight.
        file: What is fetched.
        part_bytes: Size of all parts but the last.
    """

    def __init__(self, folder: Path, file: RemoteFile, part_bytes: int) -> None:
        name = hashlib.sha256(file.path.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        self.data = folder / f"{name}.part"
        self.journal = folder / f"{name}.parts.jsonl"
        self._identity = {"etag": file.etag, "bytes": file.bytes, "part_bytes": part_bytes}
        self._lock = threading.Lock()
        self._descriptor = -1
        self.size = file.bytes
        self.part_bytes = part_bytes
        self.done = self._read_journal() if file.etag else set()

    @property
    def parts(self) -> int:
        """Into how many parts the file falls; an empty file is one part of nothing."""
        return max(1, -(-self.size // self.part_bytes))

    def bounds(self, part: int) -> tuple[int, int]:
        """First byte, and the one after the last, of a part."""
        return part * self.part_bytes, min(self.size, (part + 1) * self.part_bytes)

    def write(self, offset: int, chunk: bytes) -> None:
        """Put bytes where they belong.

        Raises:
            OSError: The disk is full or broken.
        """
        descriptor = self._open()
        while chunk:
            written = os.pwrite(descriptor, chunk, offset)
            offset, chunk = offset + written, chunk[written:]

    def finish_part(self, part: int) -> bool:
        """Remember that a part is on the disk; whether it was the last one missing."""
        # The bytes first: after a power cut the journal must not promise what the disk has not.
        os.fsync(self._open())
        with self._lock:
            with self.journal.open("a", encoding="utf-8") as handle:
                handle.write(json.dumps({"part": part}) + "\n")
            self.done.add(part)
            return len(self.done) == self.parts

    def close(self) -> None:
        """Let go of the descriptor; what is on disk stays."""
        with self._lock:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1

    def forget(self) -> None:
        """Remove what is here."""
        self.close()
        self.done.clear()
        self.data.unlink(missing_ok=True)
        self.journal.unlink(missing_ok=True)

    def _open(self) -> int:
        with self._lock:
            if self._descriptor < 0:
                self.data.parent.mkdir(parents=True, exist_ok=True)
                if not self.done:
                    self.journal.write_text(json.dumps(self._identity) + "\n", encoding="utf-8")
                self._descriptor = os.open(self.data, os.O_RDWR | os.O_CREAT, 0o644)
                os.ftruncate(self._descriptor, self.size)
            return self._descriptor

    def _read_journal(self) -> set[int]:
        """The parts that are here, if they are of the same content cut in the same way."""
        lines = _read_lines(self.journal)
        if not lines or lines[0] != self._identity or not self.data.is_file():
            return set()
        if self.data.stat().st_size != self.size:
            return set()
        found = {line["part"] for line in lines[1:] if isinstance(line.get("part"), int)}
        return {part for part in found if 0 <= part < self.parts}


class Ledger:
    """Which files of a source are whole, and of which content.

    Args:
        path: A file of JSON lines; a torn last line, as a kill leaves it, is passed over.
        folder: Where the files lie.
    """

    def __init__(self, path: Path, folder: Path) -> None:
        self._path = path
        self._folder = folder
        self._lock = threading.Lock()
        self._lines = {str(line.get("path")): line for line in _read_lines(path)}

    def holds(self, file: RemoteFile) -> bool:
        """Whether the file is here, whole, unchanged since it came, and of the content now listed."""
        line = self._lines.get(file.path)
        if line is None or not file.etag:
            return False
        with contextlib.suppress(OSError):
            found = (self._folder / file.path).stat()
            now = {"path": file.path, "bytes": found.st_size, "mtime_ns": found.st_mtime_ns, "etag": file.etag}
            return now == line and found.st_size == file.bytes
        return False

    def add(self, file: RemoteFile) -> None:
        """Take in a file that is in place."""
        mtime = (self._folder / file.path).stat().st_mtime_ns
        line = {"path": file.path, "bytes": file.bytes, "mtime_ns": mtime, "etag": file.etag}
        with self._lock:
            self._lines[file.path] = line
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as handle:
                handle.write(json.dumps(line) + "\n")


def md5_of(path: Path) -> str:
    """MD5 of a file, as S3 makes an ETag of it; not for safety."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as handle:
        while chunk := handle.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _read_lines(path: Path) -> list[dict[str, Any]]:
    lines = []
    with contextlib.suppress(OSError):
        for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
            # Torn by a kill: what it said is fetched again.
            with contextlib.suppress(json.JSONDecodeError):
                line = json.loads(text)
                if isinstance(line, dict):
                    lines.append(line)
    return lines
