"""The Medical Segmentation Decathlon's Task01_BrainTumour: one 4D file per study, described by a JSON file."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from slicewise.errors import SourceError, StudyError
from slicewise.studies.labels import CORE, ENHANCING, MSD, NOTHING, OEDEMA, LabelScheme
from slicewise.studies.strict_json import load_strict
from slicewise.studies.study import StudyRecord

logger = logging.getLogger(__name__)

INDEX_NAME = "dataset.json"
TRAINING, TEST, LABELS = "imagestr", "imagests", "labelstr"
MSD_NAME = re.compile(r"^(?P<study>BRATS_\d+)\.nii(\.gz)?$")
NIFTI_NAME = re.compile(r"^(?P<study>.+?)\.nii(\.gz)?$", re.I)
NNUNET_NAME = re.compile(r"_\d{4}\.nii(\.gz)?$", re.I)  # nnU-Net's one file per channel, another layout
CHANNEL_ORDER = ("flair", "t1", "t1ce", "t2")  # the published set: FLAIR, T1w, t1gd, T2w
CHANNEL_NAMES = {
    "flair": "flair", "t2f": "flair", "t1": "t1", "t1w": "t1", "t1n": "t1",
    "t1gd": "t1ce", "t1ce": "t1ce", "t1c": "t1ce", "t1wce": "t1ce", "t2": "t2", "t2w": "t2",
}  # fmt: skip
MAX_LABEL = 255


def find_msd(paths: Iterable[PurePosixPath], source: str) -> list[StudyRecord]:
    """Studies of the set, by names alone and described as published.

    A file is one if it is named ``BRATS_<n>.nii.gz``, or if it lies in ``imagesTr`` or ``imagesTs`` with a
    ``dataset.json`` beside that folder. ``imagesTs`` has no labels: it is left out where ``imagesTr`` is there.
    """
    paths = list(paths)
    indexed = {path.parent for path in paths if path.name == INDEX_NAME}
    images = [path for path in paths if _is_image(path, indexed)]
    _warn_of_nnunet(paths)
    trained = {path.parent.parent for path in images if path.parent.name.lower() == TRAINING}
    labels = {(path.parent.parent, _stem(path)): path for path in paths if path.parent.name.lower() == LABELS}
    kept = [path for path in images if not (path.parent.name.lower() == TEST and path.parent.parent in trained)]
    if len(kept) < len(images):
        logger.info("%d studies of imagesTs are left out: they have no labels", len(images) - len(kept))
    return [_record(path, labels.get((path.parent.parent, _stem(path))), source) for path in kept]


def apply_indexes(records: Sequence[StudyRecord], folder: Path, paths: Iterable[PurePosixPath]) -> list[StudyRecord]:
    """Read each ``dataset.json`` and write its channel order and label numbering into the studies beside it.

    Raises:
        SourceError: A file is damaged, or describes another task; names it.
    """
    indexes = {path.parent: path for path in paths if path.name == INDEX_NAME}
    described: dict[PurePosixPath, dict[str, Any]] = {}
    result = []
    for record in records:
        parent = PurePosixPath(record.images["volume"][0]).parent.parent if record.layout == "msd" else None
        if parent is not None and parent in indexes:
            if parent not in described:
                described[parent] = _describe(folder / indexes[parent])
            record = record.model_copy(update=described[parent])
        result.append(record)
    return result


def _is_image(path: PurePosixPath, indexed: set[PurePosixPath]) -> bool:
    folder = path.parent.name.lower()
    if folder in (TRAINING, TEST) and path.parent.parent in indexed:
        return bool(NIFTI_NAME.match(path.name)) and not NNUNET_NAME.search(path.name)
    return folder != LABELS and bool(MSD_NAME.match(path.name))


def _warn_of_nnunet(paths: Iterable[PurePosixPath]) -> None:
    parted = [path for path in paths if path.parent.name.lower() == TRAINING and NNUNET_NAME.search(path.name)]
    if parted:
        logger.warning(
            "%d files of nnU-Net's layout are left out, e.g. %s: list them in a studies.csv", len(parted), parted[0]
        )


def _stem(path: PurePosixPath) -> str:
    match = NIFTI_NAME.match(path.name)
    return match["study"] if match else path.name


def _record(path: PurePosixPath, label: PurePosixPath | None, source: str) -> StudyRecord:
    labelled = label is not None and path.parent.name.lower() == TRAINING
    return StudyRecord(
        study_id=_stem(path),
        patient_id=_stem(path),
        source=source,
        layout="msd",
        images={"volume": (str(path),)},
        labels=(str(label),) if labelled else (),
        channel_order=CHANNEL_ORDER,
        **MSD.record_fields(),
    )


def _describe(path: Path) -> dict[str, Any]:
    """The record fields that a ``dataset.json`` decides."""
    index = load_strict(path)
    if not isinstance(index, dict):
        raise SourceError(f"{path} is not a JSON object", "copy it as it came with Task01_BrainTumour")
    modality = index.get("modality", index.get("channel_names"))
    fields: dict[str, Any] = {}
    if modality is not None:
        fields["channel_order"] = _channels(modality, path)
    if index.get("labels") is not None:
        fields |= _labels(index["labels"], path).record_fields()
    return fields


def _channels(modality: Any, path: Path) -> tuple[str, ...]:
    """``{"0": "FLAIR", …}`` as modality names in the order of the channels."""
    cure = "name FLAIR, T1w, t1gd and T2w under the keys 0, 1, 2, 3"
    names = modality if isinstance(modality, dict) else {}
    texts = [names.get(str(index)) for index in range(len(names))]
    order = [
        CHANNEL_NAMES.get(re.sub(r"[\W_]", "", text.lower())) if isinstance(text, str) else None for text in texts
    ]
    known = [name for name in order if name is not None]
    if not order or len(known) != len(order):
        message = f"{path}: modality is {str(modality)[:100]}, not the sequences of a brain tumour study"
        raise SourceError(message, cure)
    if len(set(known)) != len(known):
        raise SourceError(f"{path}: modality names {', '.join(known)}: one of them twice", cure)
    return tuple(known)


def _labels(labels: Any, path: Path) -> LabelScheme:
    """``{"1": "edema", …}``, or nnU-Net's ``{"edema": 1, …}``, as a numbering."""
    if not isinstance(labels, dict):
        raise SourceError(f"{path}: labels is not an object", 'write it as {"0": "background", "1": "edema", …}')
    values: dict[int, int] = {}
    for key, text in labels.items():
        key, text = (text, key) if isinstance(text, int) else (key, text)
        try:
            number = int(key)
            meaning = _meaning(str(text).lower())
        except (TypeError, ValueError):
            number, meaning = -1, None
        if meaning is None or not 0 <= number <= MAX_LABEL:
            message = f"{path}: labels has {str(key)[:40]}: {str(text)[:40]}, which is no part of a tumour"
            raise SourceError(message, "use background, edema, non-enhancing tumor and enhancing tumour")
        values[number] = meaning
    return LabelScheme({number: meaning for number, meaning in values.items() if number})


def _meaning(text: str) -> int | None:
    """The BraTS value of a part's English name."""
    if "background" in text:
        return NOTHING
    if "edema" in text or "oedema" in text or "snfh" in text:
        return OEDEMA
    if re.search(r"non.?enhancing|necro|netc?\b|ncr", text):
        return CORE
    return ENHANCING if "enhancing" in text else None


def channel_order(record: StudyRecord, n_volumes: int, name: str) -> tuple[str, ...]:
    """The record's channel order, checked against a file of ``n_volumes`` volumes.

    Raises:
        StudyError: The file holds another number of volumes.
    """
    order = record.channel_order or CHANNEL_ORDER
    if n_volumes != len(order):
        message = f"{name} holds {n_volumes} volumes, not {len(order)} ({', '.join(order)})"
        raise StudyError(record.study_id, message, "give the 4D file as published, or correct dataset.json")
    return order
