"""A dataset folder: its manifest, checked on writing and on reading."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from slicewise.errors import SourceError
from slicewise.files import read_json, sha256_file, sha256_json
from slicewise.studies.study import StudyRecord

MANIFEST_NAME = "manifest.json"
HASH_THREADS = 4
RESEARCH_USE = "For research only, not for diagnosis; each source's licence applies to its files."
AGAIN = "run `slicewise download` again"

Progress = Callable[[str, int, int], None]


class FetchedEntry(BaseModel):
    """One file as a server had it; the path is relative to the source."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    bytes: int
    etag: str


class SourceEntry(BaseModel):
    """Where a part of the dataset came from.

    Attributes:
        name: Short name, and the folder of its files.
        given: The word the user gave (in JSON: ``from``).
        layout: Of its studies, several joined by ``+``.
        n_studies: How many.
        licence: Of its files.
        synthetic: Whether no patient was scanned for it.
        fetched: What came over the network, an archive as such and not what was in it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    name: str
    given: str = Field(alias="from")
    layout: str
    n_studies: int
    licence: str
    synthetic: bool = False
    fetched: tuple[FetchedEntry, ...] = ()


class FileEntry(BaseModel):
    """One file of the dataset, its path relative to the dataset folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    bytes: int
    sha256: str


class Manifest(BaseModel):
    """The content of ``manifest.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["slicewise-dataset"] = "slicewise-dataset"
    version: Literal[1] = 1
    research_use: str = RESEARCH_USE
    sources: tuple[SourceEntry, ...]
    files: tuple[FileEntry, ...]
    studies: tuple[StudyRecord, ...]
    digest: str


@dataclass(frozen=True)
class Dataset:
    """A dataset folder whose manifest has been read.

    Attributes:
        root: The folder; the records' paths are relative to it.
        records: The studies.
        digest: SHA-256 over the files' digests and the study ids.
        sources: Where it came from.
    """

    root: Path
    records: tuple[StudyRecord, ...]
    digest: str
    sources: tuple[SourceEntry, ...]


def build_manifest(
    root: Path,
    sources: Sequence[SourceEntry],
    records: Sequence[StudyRecord],
    progress: Progress | None = None,
    known: Mapping[str, str] | None = None,
) -> Manifest:
    """Digest every file that the records use.

    Args:
        root: The dataset folder.
        sources: Where it came from.
        records: The studies, their paths relative to ``root``.
        progress: Called with (what, done, total).
        known: Digests that need not be computed again, by path.
    """
    paths = sorted({path for record in records for path in study_files(record)})
    known = known or {}
    files = []
    with ThreadPoolExecutor(HASH_THREADS) as pool:
        digests = pool.map(lambda path: known.get(path) or sha256_file(root / path), paths)
        for done, (path, sha256) in enumerate(zip(paths, digests, strict=True), start=1):
            files.append(FileEntry(path=path, bytes=(root / path).stat().st_size, sha256=sha256))
            if progress is not None:
                progress("digest", done, len(paths))
    return Manifest(
        sources=tuple(sources),
        files=tuple(files),
        studies=tuple(records),
        digest=_digest(files, records),
    )


def study_files(record: StudyRecord) -> list[str]:
    """All files of a study: images, then labels."""
    return [*(path for role in record.images.values() for path in role), *record.labels]


def load_dataset(folder: Path) -> Dataset:
    """Read a dataset's manifest and check that it is whole.

    The files' presence and sizes are checked, not their content.

    Raises:
        SourceError: No manifest, one that is damaged or of another version, or a file that is missing, of
            another size or outside the folder; names it.
    """
    manifest = read_manifest(folder)
    _require_whole(folder, manifest)
    return Dataset(folder, manifest.studies, manifest.digest, manifest.sources)


def read_manifest(folder: Path) -> Manifest:
    """Read a dataset's manifest, without a look at the files.

    Raises:
        SourceError: There is none, or it is damaged or of another version.
    """
    path = folder / MANIFEST_NAME
    try:
        return Manifest.model_validate(read_json(path))
    except OSError as error:
        message = f"{folder} is not a dataset: cannot read {MANIFEST_NAME} ({error.strerror})"
        raise SourceError(message, "make one with `slicewise download`") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise SourceError(f"{path} is not a dataset manifest: {key}: {first['msg']}", AGAIN) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise SourceError(f"{path} is damaged: {error}", AGAIN) from error


def _require_whole(folder: Path, manifest: Manifest) -> None:
    listed = {entry.path for entry in manifest.files}
    unlisted = [path for record in manifest.studies for path in study_files(record) if path not in listed]
    if unlisted:
        raise SourceError(f"{folder / MANIFEST_NAME} does not list {unlisted[0]}", AGAIN)
    if len({record.study_id for record in manifest.studies}) != len(manifest.studies):
        raise SourceError(f"{folder / MANIFEST_NAME} has two studies of one id", AGAIN)
    if manifest.digest != _digest(manifest.files, manifest.studies):
        raise SourceError(f"{folder / MANIFEST_NAME} does not match its digest", AGAIN)
    for entry in manifest.files:
        relative = PurePosixPath(entry.path)
        if relative.is_absolute() or ".." in relative.parts:
            raise SourceError(f"{folder / MANIFEST_NAME} names {entry.path}, outside the dataset", AGAIN)
        if not _has_size(folder / entry.path, entry.bytes):
            raise SourceError(f"{folder / entry.path} is missing or not of {entry.bytes} bytes", AGAIN)


def _has_size(file: Path, size: int) -> bool:
    # One look at each file: there may be tens of thousands, on a network disk.
    try:
        found = file.stat()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size == size


def _digest(files: Sequence[FileEntry], records: Sequence[StudyRecord]) -> str:
    return sha256_json(
        {
            "files": sorted(entry.sha256 for entry in files),
            "studies": sorted(record.study_id for record in records),
        }
    )
