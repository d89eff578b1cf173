"""From sources to a dataset folder: the files that studies use, and a manifest with a digest of each."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from slicewise.config import DownloadConfig
from slicewise.errors import SourceError
from slicewise.files import atomic_folder, write_json
from slicewise.studies.dataset import (
    MANIFEST_NAME,
    Dataset,
    Progress,
    SourceEntry,
    build_manifest,
    load_dataset,
    study_files,
)
from slicewise.studies.layouts import discover
from slicewise.studies.phantom import write_phantoms
from slicewise.studies.study import StudyRecord

__all__ = ["Dataset", "acquire", "load_dataset"]

logger = logging.getLogger(__name__)

PHANTOM = "phantom"
GIVE = "give phantom, or a folder of studies"
LATER = ("kaggle", "msd")
LICENCES = {
    PHANTOM: "synthetic, no patient data",
    "brats": "BraTS data-use agreement",
    "lgg": "CC BY-NC-SA 4.0",
    "images": "not stated with the files: check the source's terms",
}


def acquire(
    sources: Sequence[str],
    out: Path,
    config: DownloadConfig,
    seed: int,
    progress: Progress | None = None,
) -> Dataset:
    """Gather sources into a dataset folder; all of it appears at once, or nothing does.

    Files are hard links where the file system allows it, else copies, never symbolic links.

    Args:
        sources: ``phantom`` or folders (``~`` is expanded).
        out: The dataset folder; an earlier dataset there is replaced, anything else is left alone.
        config: Phantoms, and how many studies to take of each source.
        seed: For the phantoms.
        progress: Called with (what, done, total).

    Raises:
        SourceError: A source is missing, empty, of no known layout or not supported; names it.
    """
    if not sources:
        raise SourceError("no source was given", GIVE)
    for source in sources:
        _require_usable(source, out)
    _require_replaceable(out)
    records: list[StudyRecord] = []
    entries: list[SourceEntry] = []
    with atomic_folder(out) as folder:
        for source, name in zip(sources, _source_names(sources), strict=True):
            found = _gather(source, name, folder, config, seed, progress)
            entries.append(_entry(source, name, found))
            records += _distinct(found, {record.study_id for record in records})
        manifest = build_manifest(folder, entries, records, progress)
        write_json(folder / MANIFEST_NAME, manifest.model_dump(mode="json", by_alias=True))
    logger.info("%s holds %d studies of %d sources", out, len(records), len(entries))
    return load_dataset(out)


def _require_usable(source: str, out: Path) -> None:
    if source == PHANTOM:
        return
    if "://" in source or source.lower() in LATER:
        message = f"source {source!r} is not supported: this version reads folders and phantom"
        raise SourceError(message, "download the set into a folder first and give that folder")
    folder = Path(source).expanduser()
    if not folder.is_dir():
        raise SourceError(f"source {source!r} is not a folder", GIVE)
    inside, outside = out.resolve(), folder.resolve()
    if inside == outside or outside in inside.parents or inside in outside.parents:
        raise SourceError(f"source {source!r} and the output {out} lie in each other", "choose another --out")


def _require_replaceable(out: Path) -> None:
    """Only an empty folder or a dataset is replaced: a wrong word must not delete a home."""
    if not out.exists():
        return
    if not out.is_dir() or (any(out.iterdir()) and not (out / MANIFEST_NAME).is_file()):
        raise SourceError(f"{out} exists and is not a dataset", "choose another --out, or remove it")


def _source_names(sources: Sequence[str]) -> list[str]:
    """Short, distinct, lower-case names."""
    names: list[str] = []
    for source in sources:
        base = PHANTOM if source == PHANTOM else Path(source).expanduser().resolve().name
        base = base.lower().replace(" ", "_").lstrip(".") or "source"
        taken = [base, *(f"{base}-{number}" for number in range(2, len(sources) + 2))]
        names.append(next(name for name in taken if name not in names))
    return names


def _gather(
    source: str, name: str, folder: Path, config: DownloadConfig, seed: int, progress: Progress | None
) -> list[StudyRecord]:
    """Bring one source's files below ``folder``/``name``; records have paths relative to ``folder``."""
    if source == PHANTOM:
        phantom = config.phantom
        limit = min(phantom.n_studies, config.max_studies or phantom.n_studies)
        write_phantoms(phantom.model_copy(update={"n_studies": limit}), seed, folder / name, progress)
        found = [r.model_copy(update={"synthetic": True}) for r in discover(folder / name, name)]
        return [_moved(record, name) for record in found]
    origin = Path(source).expanduser()
    chosen = _evenly(discover(origin, name), config.max_studies)
    for done, record in enumerate(chosen, start=1):
        for path in study_files(record):
            _link(origin / path, folder / name / path)
        if progress is not None:
            progress(name, done, len(chosen))
    return [_moved(record, name) for record in chosen]


def _evenly(records: Sequence[StudyRecord], limit: int | None) -> list[StudyRecord]:
    """At most ``limit`` records, evenly spaced over the sorted list (and so over ``yes`` and ``no``)."""
    if limit is None or limit >= len(records):
        return list(records)
    return [records[int(index)] for index in (np.arange(limit) + 0.5) * len(records) / limit]


def _moved(record: StudyRecord, name: str) -> StudyRecord:
    images = {role: tuple(f"{name}/{path}" for path in paths) for role, paths in record.images.items()}
    return record.model_copy(update={"images": images, "labels": tuple(f"{name}/{path}" for path in record.labels)})


def _link(origin: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    real = origin.resolve()
    try:
        os.link(real, target)
    except OSError as link_error:
        logger.debug("copying %s: %s", real, link_error)
        try:
            shutil.copy2(real, target)
        except OSError as error:
            message = f"cannot copy {origin}: {error.strerror}"
            raise SourceError(message, "check the file's permissions and the disk's free space") from error


def _entry(source: str, name: str, records: Sequence[StudyRecord]) -> SourceEntry:
    layouts = sorted({record.layout for record in records})
    kinds = [PHANTOM] if source == PHANTOM else layouts
    return SourceEntry(
        name=name,
        given=source,
        layout="+".join(layouts),
        n_studies=len(records),
        licence="; ".join(LICENCES[kind] for kind in kinds),
    )


def _distinct(records: Sequence[StudyRecord], taken: set[str]) -> list[StudyRecord]:
    """Prefix the ids that an earlier source has taken with the source's name."""
    result = []
    for record in records:
        if record.study_id in taken:
            record = record.model_copy(update={"study_id": f"{record.source}_{record.study_id}"})
        result.append(record)
    return result
