"""One study to its slices in the store: what a worker process of ``preprocess`` does."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicewise.config import PreprocessConfig, SliceConfig
from slicewise.errors import StudyError, TooLargeError
from slicewise.slices import kernels
from slicewise.slices.crop import pixel_area_mm2
from slicewise.slices.planes import cut_study
from slicewise.slices.quality import QualityRecord, estimate_snr
from slicewise.slices.selection import select_slices
from slicewise.slices.store import SliceEntry, StudyEntry, StudyFailure, join_native, study_key, write_study
from slicewise.slices.transform import UNKNOWN_MODALITY, Look, as_plane, look_at, render
from slicewise.studies.reading import read_study
from slicewise.studies.study import Study, StudyRecord

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Planes:
    """The prepared slices of one study: ``[n, C, size, size]``, ``[n, size, size]`` or None, and their entries.

    ``native`` is ``[D, H, W]``: head and labels in the study's own voxels.
    """

    images: NDArray[np.float16]
    labels: NDArray[np.uint8] | None
    native: NDArray[np.uint8]
    entries: tuple[SliceEntry, ...]
    quality: QualityRecord


def prepare_study(
    record: StudyRecord, root: Path, folder: Path, config: PreprocessConfig, seed: int
) -> StudyEntry | StudyFailure:
    """Read, prepare and write one study; what is wrong with it becomes a ``StudyFailure``.

    Args:
        record: The study.
        root: The dataset folder.
        folder: The store's folder.
        config: The section ``preprocess``.
        seed: Seed of the slice selection.
    """
    try:
        study = cut_study(read_study(record, root), config.slice.plane)
        planes = _prepare_planes(study, config, seed)
    except StudyError as error:
        return StudyFailure(study_id=record.study_id, reason=str(error))
    except MemoryError:
        reason = f"study {record.study_id}: too large for this machine's memory — scale it down or lower workers"
        return StudyFailure(study_id=record.study_id, reason=reason)
    key = study_key(record.study_id)
    digests = write_study(folder, key, planes.images, planes.labels, planes.native)
    return StudyEntry(
        key=key,
        study_id=record.study_id,
        patient_id=record.patient_id,
        source=record.source,
        layout=record.layout,
        synthetic=record.synthetic,
        grade=record.grade,
        modalities=study.modalities,
        known_regions=study.known_regions,
        spacing_mm=study.spacing_mm,
        spacing_known=study.spacing_known,
        quality=planes.quality,
        content_xxh3=digests.image,
        label_xxh3=digests.label,
        native_xxh3=digests.native,
        warnings=study.warnings,
        slices=planes.entries,
    )


def known_channels(study: Study, config: SliceConfig) -> tuple[list[NDArray[Any]], list[str], list[int]]:
    """The study's volumes that the network knows, their names, and the channel of each.

    Raises:
        StudyError: It has none of them.
    """
    wanted = config.modalities
    volumes, names, at = [], [], []
    for volume, name in zip(study.channels, study.modalities, strict=True):
        entering = config.unknown_modality if name == UNKNOWN_MODALITY else name
        if entering in wanted:
            volumes.append(volume)
            names.append(name)
            at.append(wanted.index(entering))
    if not volumes:
        has = ", ".join(study.modalities)
        raise StudyError(study.record.study_id, f"has only {has}", "add one to preprocess.slice.modalities")
    return volumes, names, at


def _prepare_planes(study: Study, config: PreprocessConfig, seed: int) -> _Planes:
    """Prepare the slices that are not empty.

    Raises:
        StudyError: No slice has enough head or brain in it, or one is too large.
    """
    volumes, names, at = known_channels(study, config.slice)
    count, height, width = volumes[0].shape
    size = config.slice.size
    images = np.empty((count, len(config.slice.modalities), size, size), dtype=np.float16)
    labels = None if study.labels is None else np.zeros((count, size, size), dtype=np.uint8)
    pixels = _tumour_pixels(study)
    kept: list[tuple[int, Look]] = []
    coverage = 0.0
    for z in range(count):
        planes = [as_plane(volume[z]) for volume in volumes]
        look = _look(study, z, planes, config)
        if look.share < config.min_foreground:
            coverage += look.share / count
            continue
        if not render(planes, at, look, config.slice, images[len(kept)]).any():
            continue  # all channels constant: empty, not wrong; the next slice takes its place
        coverage += look.share / count
        if labels is not None and study.labels is not None and pixels[z]:
            kernels.nearest(np.ascontiguousarray(study.labels[z]), look.geometry.square, labels[len(kept)])
        kept.append((z, look))
    if not kept:
        raise StudyError(study.record.study_id, "no slice shows head or brain", "check the images")
    middle, look = kept[len(kept) // 2]
    top, bottom, left, right = look.head
    window = (middle, slice(top, bottom), slice(left, right))
    head = look.mask[window[1:]] > 0
    snr = {name: estimate_snr(volume[window], head) for volume, name in zip(volumes, names, strict=True)}
    quality = QualityRecord(frame=(count, height, width), coverage=round(coverage, 4), snr=snr)
    entries = _entries(study, pixels, kept, config, seed)
    native = join_native(_heads(volumes[0].shape, kept), study.labels)
    return _Planes(images[: len(kept)], None if labels is None else labels[: len(kept)], native, entries, quality)


def _heads(shape: tuple[int, ...], kept: Sequence[tuple[int, Look]]) -> NDArray[np.bool_]:
    """``[D, H, W]``: the head in every slice that was kept."""
    heads = np.zeros(shape, dtype=np.bool_)
    for z, look in kept:
        heads[z] = look.mask.view(np.bool_)
    return heads


def _look(study: Study, z: int, planes: Sequence[NDArray[Any]], config: PreprocessConfig) -> Look:
    try:
        return look_at(planes, config.slice, study.spacing_mm[1:])
    except TooLargeError as error:
        raise StudyError(study.record.study_id, f"slice {z}: {error.message}", error.cure) from error


def _tumour_pixels(study: Study) -> NDArray[np.int64]:
    """Per slice how many pixels the mask marks; 0 without a mask."""
    counts = np.zeros(len(study.channels[0]), dtype=np.int64)
    if study.labels is not None:
        kernels.count_by_slice(study.labels, counts)
    return counts


def _entries(
    study: Study,
    pixels: NDArray[np.int64],
    kept: Sequence[tuple[int, Look]],
    config: PreprocessConfig,
    seed: int,
) -> tuple[SliceEntry, ...]:
    classes = [_tumour(study, int(pixels[z]), config.min_tumour_pixels) for z, _ in kept]
    selected = select_slices(classes, config, seed, study.record.study_id)
    size, pixel_mm = config.slice.size, study.spacing_mm[1:]
    return tuple(
        SliceEntry(
            z=z,
            tumour=tumour,
            selected=chosen,
            foreground=round(look.share, 4),
            pixel_mm2=round(pixel_area_mm2(look.geometry, size, pixel_mm), 6),
            box=look.geometry.square,
        )
        for (z, look), tumour, chosen in zip(kept, classes, selected, strict=True)
    )


def _tumour(study: Study, pixels: int, min_pixels: int) -> bool | None:
    """Whether a slice shows tumour; None where nobody says or the tumour is too small to call."""
    if study.labels is None:
        return study.record.tumour
    return None if 0 < pixels < min_pixels else pixels > 0
