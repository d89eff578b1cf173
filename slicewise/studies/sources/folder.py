"""The source of a folder on this machine: nothing is fetched, its files are linked or copied as they are."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from slicewise.errors import SourceError
from slicewise.files import sha256_json
from slicewise.studies.dataset import study_files
from slicewise.studies.sources.base import Context, Gathered, Plan, Source
from slicewise.studies.sources.found import find_studies
from slicewise.studies.study import StudyRecord

GIVE = "choose another --out"


class FolderSource(Source):
    """A folder of studies in any known layout."""

    def __init__(self, given: str, name: str) -> None:
        super().__init__(given, name)
        self._records: tuple[StudyRecord, ...] = ()

    @property
    def folder(self) -> Path:
        """The folder."""
        return Path(self.given).expanduser()

    def require_usable(self, out: Path) -> None:
        """Refuse a folder that holds the output, or lies in it."""
        inside, outside = out.resolve(), self.folder.resolve()
        if inside == outside or outside in inside.parents or inside in outside.parents:
            raise SourceError(f"source {self.given!r} and the output {out} lie in each other", GIVE)

    def plan(self, context: Context) -> Plan:
        """Find the studies; their files' sizes and times of change stand for their content."""
        self._records = find_studies(self.folder, self.given, self.name, context.config.max_studies)
        root = self.folder.resolve()
        seen: list[object] = [record.model_dump(mode="json") for record in self._records]
        for record in self._records:
            for path in study_files(record):
                found = self._look(root, path, follow=context.config.follow_links)
                seen.append([path, found.st_size, found.st_mtime_ns])
        return Plan(sha256_json(seen), needed_bytes=0)

    def gather(self, context: Context) -> Gathered:
        """The folder itself."""
        return Gathered(self.folder, self._records)

    def _look(self, root: Path, path: str, *, follow: bool) -> os.stat_result:
        """Size and time of one file, which must be a file and, behind all links, lie in the folder."""
        file = root / path
        try:
            real = file.resolve(strict=True)
            found = real.stat()
        except OSError as error:
            raise SourceError(
                f"{self.folder / path} cannot be read: {error.strerror}", "correct or remove it"
            ) from error
        if not stat.S_ISREG(found.st_mode):
            raise SourceError(f"{self.folder / path} is no regular file", "remove it")
        if not follow and root not in real.parents:
            message = f"{self.folder / path} is a link to {real}, outside of the source"
            raise SourceError(message, "where you trust the folder, set download.follow_links=true")
        return found
