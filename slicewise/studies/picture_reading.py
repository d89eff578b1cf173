"""Studies made of 2D pictures: LGG kaggle_3m slices, and single images of unknown modality."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicewise.config import MODALITIES
from slicewise.errors import StudyError
from slicewise.studies.pictures import grey_pixels, open_picture
from slicewise.studies.repair import drop_constant, replace_non_finite
from slicewise.studies.study import Study, StudyRecord

Array = NDArray[Any]
LGG_CHANNELS = ("t1", "flair", "t1ce")  # pre-contrast, FLAIR, post-contrast
OEDEMA = 2
MASK_THRESHOLD = 127


def read_lgg(record: StudyRecord, root: Path) -> Study:
    """Read numbered slices of the kaggle_3m set; the masks tell the whole tumour and nothing else."""
    warnings: list[str] = []
    files = [root / name for name in record.images["slices"]]
    stack = _stack([_lgg_slice(path, record.study_id) for path in files], files, record.study_id)
    masks = [root / name for name in record.labels]
    labels = _lgg_labels(masks, files, stack, record.study_id) if masks else None
    channels = _lgg_channels(stack, warnings)
    channels = drop_constant(channels, record.study_id, warnings)
    return Study(
        record=record,
        modalities=tuple(channels),
        channels=tuple(channels.values()),
        labels=labels,
        known_regions=() if labels is None else ("WT",),
        spacing_mm=(1.0, 1.0, 1.0),
        spacing_known=False,
        warnings=tuple(warnings),
    )


def _lgg_labels(masks: Sequence[Path], files: Sequence[Path], stack: Array, study_id: str) -> NDArray[np.uint8]:
    """FLAIR abnormality as label 2, ``[Z, H, W]``."""
    if len(masks) != len(files):
        message = f"{len(files)} slices but {len(masks)} masks, e.g. {masks[0]}"
        raise StudyError(study_id, message, "give one _mask.tif per slice")
    grey = [grey_pixels(open_picture(path, study_id)[0]) for path in masks]
    checked = _stack([*grey, stack[0, ..., 0]], [*masks, files[0]], study_id)[:-1]
    return np.where(checked > MASK_THRESHOLD, OEDEMA, 0).astype(np.uint8)


def _lgg_slice(path: Path, study_id: str) -> Array:
    image, _ = open_picture(path, study_id)
    if image.mode != "RGB":
        message = f"{path} has mode {image.mode}, not the three channels pre-contrast, FLAIR, post-contrast"
        raise StudyError(study_id, message, "use the kaggle_3m files as published")
    return np.asarray(image)


def _stack(planes: Sequence[Array], files: Sequence[Path], study_id: str) -> Array:
    for plane, path in zip(planes, files, strict=True):
        if plane.shape[:2] != planes[-1].shape[:2]:
            sizes = f"{path} is {plane.shape[1]}×{plane.shape[0]}, {files[-1]} is "
            message = f"{sizes}{planes[-1].shape[1]}×{planes[-1].shape[0]}"
            raise StudyError(study_id, message, "give all slices and masks of a study the same size")
    return np.stack(planes)


def _lgg_channels(stack: Array, warnings: list[str]) -> dict[str, Array]:
    """Channels by modality, ``[Z, H, W]`` each; one that repeats FLAIR in every slice was never scanned."""
    named = {name: stack[..., index] for index, name in enumerate(LGG_CHANNELS)}
    for name in ("t1", "t1ce"):
        if np.array_equal(named[name], named["flair"]):
            del named[name]
            warnings.append(f"{name} only repeats flair and counts as missing")
    return {name: named[name] for name in MODALITIES if name in named}


def read_image(record: StudyRecord, root: Path) -> Study:
    """Read one 2D picture as a study of one slice and one unknown modality."""
    path = root / record.images["image"][0]
    picture, notes = open_picture(path, record.study_id)
    warnings = list(notes)
    pixels = replace_non_finite(grey_pixels(picture), str(path), record.study_id, warnings)
    pixels = drop_constant({"unknown": pixels}, record.study_id, warnings)["unknown"]
    return Study(
        record=record,
        modalities=("unknown",),
        channels=(pixels[None],),
        labels=None,
        known_regions=(),
        spacing_mm=(1.0, 1.0, 1.0),
        spacing_known=False,
        warnings=tuple(warnings),
    )
