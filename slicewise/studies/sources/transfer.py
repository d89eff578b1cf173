"""Fetching many files at once, large ones by parts, going on from what an earlier call has left."""

from __future__ import annotations

import contextlib
import logging
import shutil
import threading
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path

from slicewise.config import DownloadConfig
from slicewise.errors import SourceError
from slicewise.studies.sources.base import Context, RemoteFile
from slicewise.studies.sources.meter import Meter
from slicewise.studies.sources.partial import Ledger, PartialFile, md5_of
from slicewise.studies.sources.remote import Remote
from slicewise.studies.sources.retry import ChangedError, Patience, StoppedError, TransientError
from slicewise.studies.sources.space import disk_error

logger = logging.getLogger(__name__)

FILES, PARTS, LEDGER = "files", "parts", "ledger.jsonl"
ROUNDS = 3
NOT_MD5 = "where the server's ETags are no MD5, set download.s3.check_etag=false"


class Transfer:
    """Fetches a source's files into ``<stage>/files``.

    Args:
        context: The stage, the configuration and whom to tell.
        name: The source's, for progress.
    """

    def __init__(self, context: Context, name: str) -> None:
        self._context = context
        self._config: DownloadConfig = context.config
        self._name = name
        self.folder = context.stage / FILES
        self._parts = context.stage / PARTS
        self._ledger = Ledger(context.stage / LEDGER, self.folder)
        self._stop = threading.Event()
        self._meter = Meter(None, name, 0, 0)

    def missing_bytes(self, remotes: Sequence[Remote]) -> int:
        """How much is still to come."""
        return sum(remote.file.bytes - self._have(remote) for remote in remotes)

    def keep_earlier(self, files: Sequence[RemoteFile]) -> None:
        """Take over the files that an earlier dataset has of the same content."""
        earlier = self._context.earlier
        for file in files:
            known = earlier.files.get(file.path) if earlier else None
            if earlier is None or known != file or not file.etag or self._ledger.holds(file):
                continue
            target = self.folder / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                link_or_copy(earlier.folder / file.path, target)
                self._ledger.add(file)

    def run(self, remotes: Sequence[Remote]) -> list[RemoteFile]:
        """Fetch all; what was fetched, in the given order, as it was when it was whole.

        Raises:
            SourceError: A file cannot be had; what has come stays for the next call.
        """
        current = list(remotes)
        for _ in range(ROUNDS):
            self._begin(current)
            spoilt = self._round([remote for remote in current if not self._ledger.holds(remote.file)])
            if not spoilt:
                self._meter.finish()
                return [remote.file for remote in current]
            current = [remote.again() if remote in spoilt else remote for remote in current]
        remote, (reason, cure) = next(iter(spoilt.items()))
        raise SourceError(f"{remote.label} {reason}, {ROUNDS} times in a row", cure)

    def _begin(self, remotes: Sequence[Remote]) -> None:
        total = sum(remote.file.bytes for remote in remotes)
        self._meter = Meter(self._context.progress, self._name, total, len(remotes))
        have = sum(self._have(remote) for remote in remotes)
        self._meter.begin(have, sum(self._ledger.holds(remote.file) for remote in remotes))

    def _have(self, remote: Remote) -> int:
        """Bytes of a file that are here already."""
        if self._ledger.holds(remote.file):
            return remote.file.bytes
        partial = self._partial(remote)
        return sum(stop - start for start, stop in map(partial.bounds, partial.done))

    def _partial(self, remote: Remote) -> PartialFile:
        size = max(1, int(self._config.part_mb * 1e6)) if remote.ranged else max(1, remote.file.bytes)
        return PartialFile(self._parts, remote.file, size)

    def _round(self, remotes: Sequence[Remote]) -> dict[Remote, tuple[str, str]]:
        """Fetch what is missing once; the files that have to be fetched again, each with reason and cure."""
        fetches = [_Fetch(remote, self._partial(remote)) for remote in remotes]
        # Set for good when the round ends: Ctrl-C may hit before the pool knows of its latest thread.
        self._stop = threading.Event()
        pool = ThreadPoolExecutor(self._config.workers, thread_name_prefix="fetch")
        try:
            futures = [pool.submit(self._part, fetch, part) for fetch in fetches for part in fetch.left()]
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            failed = [error for future in done if (error := future.exception()) is not None]
            if failed:
                raise failed[0]
            return {fetch.remote: fetch.spoilt for fetch in fetches if fetch.spoilt}
        finally:
            # Also after Ctrl-C, when the pool's own end would wait for every part still in the queue.
            self._stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            for fetch in fetches:
                fetch.partial.close()

    def _part(self, fetch: _Fetch, part: int) -> None:
        """Fetch one part, and finish the file if it was the last."""
        if fetch.spoilt or self._stop.is_set():
            return
        try:
            if part not in fetch.partial.done:
                self._receive(fetch, part)
            if fetch.partial.finish_part(part):
                self._settle(fetch)
        except StoppedError:
            return
        except ChangedError:
            fetch.spoilt = ("changes while it is fetched", "fetch it when nobody writes to it")
            logger.info("%s has changed since it was listed; fetching it again", fetch.remote.label)
        except OSError as error:
            self._stop.set()
            raise disk_error(error, f"writing {fetch.remote.label}") from error
        except SourceError:
            self._stop.set()
            raise

    def _receive(self, fetch: _Fetch, part: int) -> None:
        start, stop = fetch.partial.bounds(part)
        patience = Patience(self._config, f"fetching {fetch.remote.label}", self._stop)
        position = start
        while position < stop:
            try:
                for chunk in fetch.remote.read(position, stop):
                    if self._stop.is_set():
                        raise StoppedError
                    if position + len(chunk) > stop:
                        raise TransientError("the server sent more than was asked for")
                    fetch.partial.write(position, chunk)
                    position += len(chunk)
                    self._meter.add(len(chunk))
                    patience.reset()
                if position < stop:
                    raise TransientError(f"the connection ended {stop - position} bytes early")
            except TransientError as error:
                patience.wait(error)
                if not fetch.remote.ranged:
                    self._meter.add(start - position)
                    position = start

    def _settle(self, fetch: _Fetch) -> None:
        """Check a file that has come whole, and give it its name."""
        partial, remote = fetch.partial, fetch.remote
        partial.close()
        if remote.md5 is not None and self._config.s3.check_etag and md5_of(partial.data) != remote.md5:
            partial.forget()
            fetch.spoilt = ("is not what its ETag says", NOT_MD5)
            logger.warning("%s is not what its ETag says; fetching it again", remote.label)
            return
        target = self.folder / remote.file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.data.replace(target)
        self._ledger.add(remote.file)
        partial.forget()
        self._meter.add(0, 1)


class _Fetch:
    """One file in flight, shared by its parts; ``spoilt``: why it has to be fetched again, and the cure."""

    def __init__(self, remote: Remote, partial: PartialFile) -> None:
        self.remote = remote
        self.partial = partial
        self.spoilt: tuple[str, str] | None = None

    def left(self) -> list[int]:
        """The parts to fetch; the last one where all are here, as a kill before the rename leaves it."""
        missing = [part for part in range(self.partial.parts) if part not in self.partial.done]
        return missing or [self.partial.parts - 1]


def link_or_copy(origin: Path, target: Path) -> None:
    """A hard link where the file system allows it, else a copy with the same time of change.

    Raises:
        OSError: Neither works.
    """
    try:
        target.hardlink_to(origin)
    except OSError as error:
        logger.debug("copying %s: %s", origin, error)
        shutil.copy2(origin, target)
