"""The source of an archive on this machine."""

from __future__ import annotations

import zipfile
from pathlib import Path

from slicewise.errors import SourceError
from slicewise.files import sha256_json
from slicewise.studies.sources.archives import KINDS, is_archive
from slicewise.studies.sources.base import Context, Gathered, Plan, Source
from slicewise.studies.sources.found import find_studies
from slicewise.studies.sources.unpack import Unpacking

# Compressed tar archives do not say what they hold; scans as gzip files do not shrink, plain ones to a third.
UNPACKS_TO = 3


class ArchiveSource(Source):
    """A zip or tar file, by content whatever its name."""

    @property
    def path(self) -> Path:
        """The archive."""
        return Path(self.given).expanduser()

    def require_usable(self, out: Path) -> None:
        """Refuse a file that is no archive, or that would go with an earlier dataset."""
        if out.resolve() in self.path.resolve().parents:
            raise SourceError(f"source {self.given!r} lies in the output {out}", "choose another --out")
        if not is_archive(self.path):
            raise SourceError(f"source {self.given!r} is a file, but no archive that can be read", KINDS)

    def plan(self, context: Context) -> Plan:
        """The archive's own size and time of change stand for its content."""
        found = self.path.stat()
        identity = [str(self.path.resolve()), found.st_size, found.st_mtime_ns, context.config.max_studies]
        needed = 0 if self._unpacking(context).is_done() else _unpacked_bytes(self.path)
        return Plan(sha256_json(identity), needed)

    def gather(self, context: Context) -> Gathered:
        """Unpack it."""
        job = self._unpacking(context)
        job.run()
        return Gathered(job.target, find_studies(job.target, self.given, self.name, context.config.max_studies))

    def _unpacking(self, context: Context) -> Unpacking:
        found = self.path.stat()
        return Unpacking(
            archive=self.path,
            target=context.stage / "files",
            identity=f"{found.st_size} {found.st_mtime_ns}",
            config=context.config,
            progress=context.progress,
        )


def _unpacked_bytes(path: Path) -> int:
    """What the archive says of itself; a first guess, counted again while it is written."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return sum(info.file_size for info in archive.infolist())
    size = path.stat().st_size
    return size if path.suffix.lower() == ".tar" else UNPACKS_TO * size
