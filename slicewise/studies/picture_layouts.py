"""The two layouts of 2D pictures: LGG kaggle_3m slices, and images in folders named after their class."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from slicewise.errors import SourceError
from slicewise.studies.study import StudyRecord

logger = logging.getLogger(__name__)

Numbered = dict[int, PurePosixPath]
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"})
# Folder names of the Kaggle sets of brain MRI, in lower case with "_" for spaces and hyphens.
TUMOUR_CLASSES = frozenset(
    {"yes", "tumor", "tumour", "tumorous", "tumourous", "brain_tumor", "brain_tumour"}
    | {f"{kind}{tail}" for kind in ("glioma", "meningioma", "pituitary") for tail in ("", "_tumor", "_tumour")}
)
HEALTHY_CLASSES = frozenset({"no", "no_tumor", "no_tumour", "notumor", "notumour", "healthy", "normal"})
MASK_STEM = re.compile(r"^(?P<image>.+)_mask$", re.I)
LGG_NAME = re.compile(r"^(?P<study>(?P<patient>TCGA_\w{2}_\w{4})_\d{8})_(?P<n>\d+)(?P<mask>_mask)?\.tiff?$", re.I)


def find_lgg(paths: Iterable[PurePosixPath], source: str) -> list[StudyRecord]:
    """Studies of the kaggle_3m set: numbered slices and their masks."""
    studies: dict[tuple[PurePosixPath, str], tuple[str, Numbered, Numbered]] = {}
    for path in paths:
        if match := LGG_NAME.match(path.name):
            key = (path.parent, match["study"])
            _, slices, masks = studies.setdefault(key, (match["patient"].upper(), {}, {}))
            numbered, number = masks if match["mask"] else slices, int(match["n"])
            if number in numbered:
                message = f"{path.parent} has slice {number} twice: {numbered[number].name} and {path.name}"
                raise SourceError(message, "keep one of them")
            numbered[number] = path
    records = []
    for (parent, study_id), (patient, slices, masks) in studies.items():
        if not slices:
            logger.warning("%s is left out: it has masks but no slices", parent)
            continue
        records.append(_lgg_record(study_id, patient, source, slices, masks))
    return records


def _lgg_record(
    study_id: str,
    patient: str,
    source: str,
    slices: dict[int, PurePosixPath],
    masks: dict[int, PurePosixPath],
) -> StudyRecord:
    """The record of one LGG folder, slices in the order of their numbers.

    Raises:
        SourceError: Some slices have a mask and others do not; names the first without.
    """
    numbers = sorted(slices)
    without = [number for number in numbers if number not in masks]
    if masks and without:
        raise SourceError(
            f"{slices[without[0]]} has no mask, but other slices of {study_id} have one",
            "copy the missing _mask.tif, or remove the study's folder",
        )
    return StudyRecord(
        study_id=study_id,
        patient_id=patient,
        source=source,
        layout="lgg",
        images={"slices": tuple(str(slices[number]) for number in numbers)},
        labels=tuple(str(masks[number]) for number in numbers) if masks else (),
        grade="LGG",
    )


def find_images(paths: Iterable[PurePosixPath], source: str) -> list[StudyRecord]:
    """Single images whose class is their folder, e.g. ``yes`` or ``no``; ``<image>_mask`` files are left out."""
    chosen = [path for path in paths if path.suffix.lower() in IMAGE_SUFFIXES and image_class(path) is not None]
    stems = {(path.parent, path.stem) for path in chosen}
    masks = [path for path in chosen if (m := MASK_STEM.match(path.stem)) and (path.parent, m["image"]) in stems]
    if masks:
        logger.warning("%d masks of single images are left out, e.g. %s", len(masks), masks[0])
        chosen = [path for path in chosen if path not in set(masks)]
    ids = _image_ids(chosen, source)
    return [
        StudyRecord(
            study_id=ids[path],
            patient_id=None,
            source=source,
            layout="images",
            images={"image": (str(path),)},
            tumour=image_class(path),
        )
        for path in chosen
    ]


def image_class(path: PurePosixPath) -> bool | None:
    """Whether an image's folder says tumour (True), no tumour (False) or nothing (None)."""
    folder = re.sub(r"[ -]+", "_", path.parent.name.strip().lower())
    return True if folder in TUMOUR_CLASSES else False if folder in HEALTHY_CLASSES else None


def _image_ids(paths: Sequence[PurePosixPath], source: str) -> dict[PurePosixPath, str]:
    """An id per image: folder and stem; where two agree, the extension is added, then the whole path."""
    makers = (
        lambda path: path.stem,
        lambda path: f"{path.stem}_{path.suffix[1:]}",
        lambda path: str(path).replace("/", "_"),
    )
    ids: dict[PurePosixPath, str] = {}
    left = list(paths)
    for make in makers:
        names = {path: f"{source}_{path.parent.name.lower()}_{make(path)}".replace(" ", "_") for path in left}
        seen = Counter(name.lower() for name in (*names.values(), *ids.values()))
        ids |= {path: name for path, name in names.items() if seen[name.lower()] == 1}
        left = [path for path in left if path not in ids]
    return ids | {path: f"{source}_{number}_{path.name}" for number, path in enumerate(left)}
