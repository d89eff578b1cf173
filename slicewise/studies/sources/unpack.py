"""Unpacking an archive of unknown origin into a folder: all of it appears at once, and nothing outside of it."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from slicewise.config import DownloadConfig
from slicewise.errors import SourceError
from slicewise.files import write_json
from slicewise.studies.dataset import Progress
from slicewise.studies.sources.archives import DAMAGED, KINDS, Member, damaged, open_archive
from slicewise.studies.sources.meter import EVERY_S
from slicewise.studies.sources.names import NameBook, is_clutter, safe_path
from slicewise.studies.sources.space import GB, as_size, disk_error, require_space

MARK = ".unpacked.json"
CHUNK = 1 << 18
LOOK_EVERY = 64 << 20


@dataclass(frozen=True)
class Unpacking:
    """One archive and where it goes.

    Attributes:
        archive: The file.
        target: The folder to be.
        identity: Changes with the archive's content: a folder of the same identity is kept as it is.
        config: Limits, and how much of the disk stays free.
        progress: Called with (what, done, total).
        label: What messages call the archive; default: its path.
    """

    archive: Path
    target: Path
    identity: str
    config: DownloadConfig
    progress: Progress | None = None
    label: str = ""

    def is_done(self) -> bool:
        """Whether the target is there, whole and of this archive."""
        try:
            found = json.loads((self.target / MARK).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return bool(found == {"identity": self.identity})

    def run(self) -> None:
        """Unpack, unless that is done.

        Raises:
            SourceError: The archive is damaged, hostile or too large; names it and the member.
        """
        if self.is_done():
            return
        temporary = self.target.with_name(f".{self.target.name}.unpacking")
        for leftover in (temporary, self.target):
            shutil.rmtree(leftover, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            _write_members(self, temporary)
            write_json(temporary / MARK, {"identity": self.identity})
            temporary.replace(self.target)
        except SourceError as error:
            named = error.message.replace(str(self.archive), self.label or str(self.archive))
            raise SourceError(named, error.cure) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _write_members(job: Unpacking, folder: Path) -> None:
    tally = _Tally(job, folder)
    names = NameBook(str(job.archive))

    def checked(members: Iterable[Member]) -> Iterator[tuple[Member, PurePosixPath]]:
        for member in members:
            tally.count_member()
            name = member.name.removeprefix("./")
            if not is_clutter(name):
                path = safe_path(name, str(job.archive))
                names.add(path)
                yield member, path

    with open_archive(job.archive, tally.count_read) as found:
        if found.parallel:
            # All names are checked before the first file is written.
            chosen = list(checked(found.members))
            with ThreadPoolExecutor(job.config.workers, thread_name_prefix="unpack") as pool:
                list(pool.map(lambda pair: _write(pair[0], pair[1], folder, tally), chosen))
        else:
            for member, path in checked(found.members):
                _write(member, path, folder, tally)
    if tally.files == 0:
        raise SourceError(f"{job.archive} holds no files", KINDS)
    tally.tell()


def _write(member: Member, path: PurePosixPath, folder: Path, tally: _Tally) -> None:
    if tally.failed:
        return
    target = folder / path
    size = 0
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with member.open() as source, target.open("xb") as handle:
            while chunk := source.read(CHUNK):
                size += len(chunk)
                tally.count_written(len(chunk), size, member.name)
                handle.write(chunk)
        tally.count_file()
    except SourceError:
        tally.failed = True
        raise
    except DAMAGED as error:
        tally.failed = True
        if isinstance(error, OSError) and error.errno is not None:
            raise disk_error(error, f"unpacking {tally.job.archive}") from error
        raise damaged(tally.job.archive, error, member.name) from error


class _Tally:
    """What has come out of an archive so far, against the limits; sizes in headers are not believed.

    ``failed``: a member was refused, so that the others need not be written.
    """

    def __init__(self, job: Unpacking, folder: Path) -> None:
        self.job = job
        self.files = 0
        self.failed = False
        self._limits = job.config.archive
        self._folder = folder
        self._packed = max(1, job.archive.stat().st_size)
        self._read = self._written = self._members = self._looked = 0
        self._told = time.monotonic()
        self._lock = threading.Lock()

    def count_member(self) -> None:
        """One more name."""
        self._members += 1
        limit = self._limits.max_members
        if self._members > limit:
            raise SourceError(f"{self.job.archive} has more than {limit} members", _raise_limit("max_members"))

    def count_read(self, n_bytes: int) -> None:
        """Bytes that were decompressed, headers and skipped ones included."""
        with self._lock:
            self._read += n_bytes
            self._check("")

    def count_written(self, n_bytes: int, size: int, name: str) -> None:
        """Bytes about to be written; ``size`` is the member's so far."""
        if size > self._limits.max_member_gb * GB:
            message = f"{self.job.archive}: the member {name!r} is larger than {self._limits.max_member_gb:g} GB"
            raise SourceError(message, _raise_limit("max_member_gb"))
        with self._lock:
            self._written += n_bytes
            self._check(name)
            if self._written - self._looked >= LOOK_EVERY:
                self._looked = self._written
                require_space(self._folder, n_bytes, self.job.config.keep_free_gb, f"unpacking {self.job.archive}")

    def count_file(self) -> None:
        """One more file is there."""
        with self._lock:
            self.files += 1
            now = time.monotonic()
            if now - self._told >= EVERY_S:
                self._told = now
                self.tell()

    def tell(self) -> None:
        """Report the state."""
        if self.job.progress is not None:
            text = (
                f"unpacking {self.job.label or self.job.archive.name}: {self.files} files, {as_size(self._written)}"
            )
            self.job.progress(text, self.files, self.files)

    def _check(self, name: str) -> None:
        total = max(self._read, self._written)
        where = f"{self.job.archive}: at the member {name!r}," if name else f"{self.job.archive}:"
        if total > self._limits.max_unpacked_gb * GB:
            message = f"{where} more than {self._limits.max_unpacked_gb:g} GB come out"
            raise SourceError(message, _raise_limit("max_unpacked_gb"))
        if total > LOOK_EVERY and total / self._packed > self._limits.max_ratio:
            message = f"{where} over {self._limits.max_ratio:g} times the archive's size comes out (a bomb?)"
            raise SourceError(message, _raise_limit("max_ratio"))


def _raise_limit(key: str) -> str:
    return f"where you trust the archive, raise download.archive.{key}"
