"""The ``preprocess`` stage: a dataset folder to a slice store."""

from __future__ import annotations

import hashlib
import logging
import multiprocessing
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from slicewise.config import PreprocessConfig
from slicewise.errors import InputError, StoreError, StudyError
from slicewise.files import atomic_folder, sha256_file, write_json
from slicewise.progress import Update
from slicewise.slices.selection import select_slices
from slicewise.slices.store import INDEX, SliceEntry, SliceStore, StoreIndex, StudyEntry, StudyFailure
from slicewise.slices.transform import UNKNOWN_MODALITY, pixel_area_mm2, prepare_labels, prepare_slice
from slicewise.studies.dataset import load_dataset
from slicewise.studies.reading import read_study
from slicewise.studies.study import Study, StudyRecord

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Planes:
    """The prepared slices of one study."""

    images: NDArray[np.float16]
    labels: NDArray[np.uint8] | None
    entries: tuple[SliceEntry, ...]


def build_store(
    dataset: Path, out: Path, config: PreprocessConfig, seed: int, update: Update | None = None
) -> SliceStore:
    """Preprocess every study of a dataset into a store.

    A study that fails is named, left out and listed in the index; the others go on.

    Args:
        dataset: A dataset folder made by ``download``.
        out: The store's folder; replaced when it exists.
        config: The section ``preprocess``.
        seed: Seed of the slice selection.
        update: Shows progress.

    Raises:
        SourceError: The dataset cannot be read.
        StoreError: More than ``max_failed_share`` of the studies failed.
    """
    data = load_dataset(dataset)
    with atomic_folder(out) as folder:
        done: list[StudyEntry] = []
        failures: list[StudyFailure] = []
        for outcome in _prepare_all(data.records, data.root, folder, config, seed):
            if isinstance(outcome, StudyEntry):
                done.append(outcome)
            else:
                logger.warning("left out: %s", outcome.reason)
                failures.append(outcome)
            if update:
                update(len(done) + len(failures), len(data.records), outcome.study_id)
        failures.sort(key=lambda failure: failure.study_id)
        _check_failures(failures, len(data.records), config.max_failed_share)
        index = StoreIndex(
            preprocessing=config.slice,
            data_digest=data.digest,
            sources=tuple(sorted({record.source for record in data.records})),
            studies=tuple(sorted(done, key=lambda study: study.key)),
            failures=tuple(failures),
        )
        write_json(folder / INDEX, index.model_dump(mode="json"))
    return SliceStore(out)


def _check_failures(failures: Sequence[StudyFailure], total: int, limit: float) -> None:
    if len(failures) > limit * total or len(failures) == total:
        raise StoreError(
            f"{len(failures)} of {total} studies are unusable, more than the share allowed ({limit:.0%}); "
            f"the first: {failures[0].reason}",
            "repair or remove these studies, or raise preprocess.max_failed_share",
        )


def _prepare_all(
    records: Sequence[StudyRecord], root: Path, folder: Path, config: PreprocessConfig, seed: int
) -> Iterator[StudyEntry | StudyFailure]:
    """Prepare the studies in worker processes; a worker that dies costs its own study only."""
    workers = config.workers or os.cpu_count() or 1
    remaining = {record.study_id: record for record in records}
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(min(workers, len(records)), mp_context=context) as pool:
            futures = [pool.submit(prepare_study, record, root, folder, config, seed) for record in records]
            for future in as_completed(futures):
                outcome = future.result()
                remaining.pop(outcome.study_id)
                yield outcome
    except BrokenProcessPool:
        logger.warning("a worker died; its studies are tried again one at a time")
    for record in list(remaining.values()):
        try:
            with ProcessPoolExecutor(1, mp_context=context) as pool:
                yield pool.submit(prepare_study, record, root, folder, config, seed).result()
        except BrokenProcessPool:
            reason = f"study {record.study_id}: the worker died on it (out of memory?)"
            yield StudyFailure(study_id=record.study_id, reason=reason)


def prepare_study(
    record: StudyRecord, root: Path, folder: Path, config: PreprocessConfig, seed: int
) -> StudyEntry | StudyFailure:
    """Read, prepare and write one study; what is wrong with it becomes a ``StudyFailure``."""
    try:
        study = read_study(record, root)
        planes = _prepare_planes(study, config, seed)
    except StudyError as error:
        return StudyFailure(study_id=record.study_id, reason=str(error))
    key = _key(record.study_id)
    target = folder / "studies" / key
    # A study whose worker died may have left files here.
    target.mkdir(parents=True, exist_ok=True)
    np.save(target / "image.npy", planes.images, allow_pickle=False)
    if planes.labels is not None:
        np.save(target / "label.npy", planes.labels, allow_pickle=False)
    return StudyEntry(
        key=key,
        study_id=record.study_id,
        patient_id=record.patient_id,
        source=record.source,
        layout=record.layout,
        synthetic=record.synthetic,
        modalities=study.modalities,
        known_regions=study.known_regions,
        spacing_mm=study.spacing_mm,
        spacing_known=study.spacing_known,
        content_sha256=sha256_file(target / "image.npy"),
        label_sha256=None if planes.labels is None else sha256_file(target / "label.npy"),
        warnings=study.warnings,
        slices=planes.entries,
    )


def _key(study_id: str) -> str:
    """A folder name for a study; one that had to be changed gets a mark, so that no two ids share a folder."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", study_id)
    return plain if plain == study_id else f"{plain}-{hashlib.sha256(study_id.encode()).hexdigest()[:8]}"


def _prepare_planes(study: Study, config: PreprocessConfig, seed: int) -> _Planes:
    """Prepare the slices that are not empty.

    Raises:
        StudyError: No slice has enough head or brain in it.
    """
    images, labels, rows = [], [], []
    pixel_mm = study.spacing_mm[1:]
    taken = [at for at, name in enumerate(study.modalities) if name in (*config.slice.modalities, UNKNOWN_MODALITY)]
    if not taken:
        names = ", ".join(study.modalities)
        raise StudyError(study.record.study_id, f"has only {names}", "add one to preprocess.slice.modalities")
    modalities = [study.modalities[at] for at in taken]
    for z in range(study.image.shape[1]):
        try:
            prepared = prepare_slice(study.image[taken, z], modalities, config.slice, pixel_mm)
        except InputError as error:
            if study.image.shape[1] == 1:
                raise StudyError(study.record.study_id, error.message, error.cure) from error
            continue  # a constant slice at the end of the volume is empty, not wrong
        share = float(prepared.foreground.mean())
        if share < config.min_foreground:
            continue
        images.append(prepared.image)
        if study.labels is not None:
            labels.append(prepare_labels(study.labels[z], prepared.geometry, config.slice.size))
        area = pixel_area_mm2(prepared.geometry, config.slice.size, pixel_mm)
        rows.append((z, _tumour(study, z, config.min_tumour_pixels), share, area))
    if not images:
        raise StudyError(study.record.study_id, "no slice shows head or brain", "check the images")
    selected = select_slices([row[1] for row in rows], config, seed, study.record.study_id)
    entries = tuple(
        SliceEntry(z=z, tumour=tumour, selected=chosen, foreground=round(share, 4), pixel_mm2=round(area, 6))
        for (z, tumour, share, area), chosen in zip(rows, selected, strict=True)
    )
    return _Planes(np.stack(images), np.stack(labels) if labels else None, entries)


def _tumour(study: Study, z: int, min_pixels: int) -> bool | None:
    """Whether slice ``z`` shows tumour; None where nobody says or the tumour is too small to call."""
    if study.labels is None:
        return study.record.tumour
    pixels = int(np.count_nonzero(study.labels[z]))
    return None if 0 < pixels < min_pixels else pixels > 0
