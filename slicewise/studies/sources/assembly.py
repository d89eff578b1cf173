"""Putting a dataset together from what its sources have brought, and in its place in one step."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from slicewise.config import DownloadConfig
from slicewise.errors import SourceError
from slicewise.files import replace_folder, write_json
from slicewise.studies.dataset import (
    MANIFEST_NAME,
    Dataset,
    FetchedEntry,
    Progress,
    SourceEntry,
    build_manifest,
    load_dataset,
    read_manifest,
    study_files,
)
from slicewise.studies.sources.base import Gathered, Source
from slicewise.studies.sources.meter import Meter
from slicewise.studies.sources.remembered import NAME, Remembered, RememberedSource, stamp
from slicewise.studies.sources.space import disk_error, require_space
from slicewise.studies.sources.transfer import link_or_copy
from slicewise.studies.sources.workplace import ASSEMBLY
from slicewise.studies.study import StudyRecord

logger = logging.getLogger(__name__)

NOT_STATED = "not stated with the files: check the source's terms"
LICENCES = {
    "brats": "BraTS data-use agreement",
    "lgg": "CC BY-NC-SA 4.0",
    "msd": "CC BY-SA 4.0",
}


@dataclass(frozen=True)
class Assembly:
    """One call's folders and settings."""

    place: Path
    work: Path
    config: DownloadConfig
    remembered: Remembered
    progress: Progress | None

    def current(self, out: Path, marks: tuple[RememberedSource, ...]) -> Dataset | None:
        """The dataset at ``out`` if it is whole, untouched, and made of the sources as they are now."""
        if not self.remembered.same_sources(marks):
            return None
        try:
            data = load_dataset(out)
        except SourceError as error:
            logger.info("making the dataset again: %s", error)
            return None
        intact = all(self.remembered.is_intact(self.place, path) for path in self.remembered.stamps)
        return data if intact else None

    def publish(
        self, sources: Sequence[Source], gathered: Sequence[Gathered], marks: tuple[RememberedSource, ...]
    ) -> None:
        """Assemble the dataset beside its place and put it there in one step."""
        folder = self.work / ASSEMBLY
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        records: list[StudyRecord] = []
        for source, found in zip(sources, gathered, strict=True):
            moved = [_moved(record, source.name) for record in found.records]
            records += _distinct(moved, {record.study_id for record in records})
        self._link(sources, gathered, folder)
        entries = [_entry(*pair) for pair in zip(sources, gathered, strict=True)]
        stamps = {path: seen for record in records for path in study_files(record) if (seen := stamp(folder / path))}
        manifest = build_manifest(folder, entries, records, self.progress, self._known(stamps))
        fetched = [tuple((file.path, file.bytes, file.etag) for file in found.fetched) for found in gathered]
        marks = tuple(mark.model_copy(update={"fetched": files}) for mark, files in zip(marks, fetched, strict=True))
        write_json(folder / NAME, Remembered(sources=marks, stamps=stamps).model_dump(mode="json"))
        write_json(folder / MANIFEST_NAME, manifest.model_dump(mode="json", by_alias=True))
        replace_folder(folder, self.place)

    def _link(self, sources: Sequence[Source], gathered: Sequence[Gathered], folder: Path) -> None:
        """Link or copy all files of all studies into ``folder``, several at a time."""
        pairs = {
            folder / source.name / path: found.folder / path
            for source, found in zip(sources, gathered, strict=True)
            for record in found.records
            for path in study_files(record)
        }
        device = folder.stat().st_dev
        sizes = {target: origin.stat() for target, origin in pairs.items()}
        copied = sum(found.st_size for found in sizes.values() if found.st_dev != device)
        require_space(folder, copied, self.config.keep_free_gb, f"copying to {self.place}")
        meter = Meter(self.progress, "dataset", sum(found.st_size for found in sizes.values()), len(pairs))
        meter.begin()

        def link(target: Path) -> None:
            _link(pairs[target], target)
            meter.add(sizes[target].st_size, 1)

        for parent in {target.parent for target in pairs}:
            parent.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(self.config.workers, thread_name_prefix="copy") as pool:
            list(pool.map(link, pairs))
        meter.finish()

    def _known(self, stamps: dict[str, tuple[int, int]]) -> dict[str, str]:
        """The digests of files that are the same as in the earlier dataset."""
        try:
            files = read_manifest(self.place).files
        except SourceError:
            return {}
        return {e.path: e.sha256 for e in files if stamps.get(e.path, ()) == self.remembered.stamps.get(e.path)}


def _link(origin: Path, target: Path) -> None:
    try:
        link_or_copy(origin.resolve(), target)
    except OSError as error:
        raise disk_error(error, f"copying {origin}") from error


def _moved(record: StudyRecord, name: str) -> StudyRecord:
    images = {role: tuple(f"{name}/{path}" for path in paths) for role, paths in record.images.items()}
    return record.model_copy(update={"images": images, "labels": tuple(f"{name}/{path}" for path in record.labels)})


def _entry(source: Source, found: Gathered) -> SourceEntry:
    layouts = sorted({record.layout for record in found.records})
    return SourceEntry(
        name=source.name,
        given=source.given,
        layout="+".join(layouts),
        n_studies=len(found.records),
        licence=source.licence or "; ".join(dict.fromkeys(LICENCES.get(kind, NOT_STATED) for kind in layouts)),
        synthetic=all(record.synthetic for record in found.records),
        fetched=tuple(FetchedEntry(path=file.path, bytes=file.bytes, etag=file.etag) for file in found.fetched),
    )


def _distinct(records: Sequence[StudyRecord], taken: set[str]) -> list[StudyRecord]:
    """Prefix the ids that an earlier source has taken with the source's name."""
    result = []
    for record in records:
        if record.study_id in taken:
            record = record.model_copy(update={"study_id": f"{record.source}_{record.study_id}"})
        result.append(record)
    return result
