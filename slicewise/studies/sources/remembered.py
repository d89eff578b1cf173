"""What a dataset remembers of its making, so that the next call can skip what is there and right.

A hidden file beside the manifest. It holds nothing that the dataset needs: without it the next call only takes
longer. A file counts as unchanged while its size and its time of change are what they were, as with rsync.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from slicewise.files import read_json
from slicewise.studies.sources.base import Earlier, RemoteFile

logger = logging.getLogger(__name__)

NAME = ".acquired.json"
Stamp = tuple[int, int]


class RememberedSource(BaseModel):
    """One source: its word, name and fingerprint, and what was fetched as (path, bytes, etag)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    given: str
    name: str
    fingerprint: str
    fetched: tuple[tuple[str, int, str], ...] = ()


class Remembered(BaseModel):
    """The content of the file; ``stamps``: (bytes, time of change in ns) of each file of the dataset."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sources: tuple[RememberedSource, ...] = ()
    stamps: dict[str, Stamp] = {}

    def is_intact(self, root: Path, path: str) -> bool:
        """Whether a file of the dataset is as it was when the dataset was made."""
        return path in self.stamps and stamp(root / path) == self.stamps[path]

    def same_sources(self, others: tuple[RememberedSource, ...]) -> bool:
        """Whether the dataset was made of just these sources in their present state."""
        mine = [(one.given, one.name, one.fingerprint) for one in self.sources]
        return mine == [(one.given, one.name, one.fingerprint) for one in others]

    def earlier(self, root: Path, given: str) -> Earlier | None:
        """What is left of one source's fetched files."""
        for source in self.sources:
            if source.given == given:
                files = [RemoteFile(*fields) for fields in source.fetched]
                kept = {f.path: f for f in files if self.is_intact(root, f"{source.name}/{f.path}")}
                return Earlier(root / source.name, kept)
        return None


def stamp(path: Path) -> Stamp | None:
    """Size and time of change, or None where there is no such file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def read_remembered(root: Path) -> Remembered:
    """What is remembered in a dataset folder; nothing where there is nothing or it is damaged."""
    try:
        return Remembered.model_validate(read_json(root / NAME))
    except (OSError, json.JSONDecodeError, UnicodeDecodeError, ValidationError) as error:
        logger.debug("%s remembers nothing: %s", root, error)
        return Remembered()
