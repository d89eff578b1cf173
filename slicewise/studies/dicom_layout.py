"""Studies in a folder of DICOM files: grouped by series, one series chosen per modality."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from slicewise.config import MODALITIES
from slicewise.errors import SourceError
from slicewise.studies.dicom_geometry import Stack, stack_planes
from slicewise.studies.dicom_headers import Header, digest, read_header
from slicewise.studies.dicom_modality import recognise
from slicewise.studies.study import StudyRecord

logger = logging.getLogger(__name__)

# DICOM files carry any name or none; these suffixes are surely something else.
OTHER_SUFFIXES = frozenset(
    {".nii", ".gz", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".gif", ".csv", ".tsv", ".json"}
    | {".txt", ".md", ".pdf", ".xml", ".html", ".htm", ".zip", ".tar", ".tgz", ".npy", ".npz", ".mat", ".py", ".xlsx"}
    | {".xls", ".log", ".yaml", ".yml", ".exe", ".dll", ".inf", ".ini", ".js", ".css", ".h5", ".pt", ".mha", ".nrrd"}
)
DICOM_SUFFIXES = frozenset({".dcm", ".dicom", ".ima"})
THREADS = 2  # more only wait for each other: parsing holds the interpreter, waiting for a disk does not
MIN_SLICES = 3


@dataclass(frozen=True)
class Series:
    """A series that can be read as one volume of one modality."""

    headers: tuple[Header, ...]
    modality: str
    stack: Stack

    @property
    def label(self) -> str:
        """Its number and description."""
        return self.headers[0].label

    @property
    def files(self) -> tuple[str, ...]:
        """Its files in spatial order; a multi-frame file comes once."""
        names = [header.name for header in self.headers for _ in header.planes]
        return tuple(dict.fromkeys(names[index] for index in self.stack.order))

    def rank(self) -> tuple[object, ...]:
        """What makes one series better than another of its modality: smaller is better.

        Images as scanned before derived ones, then more slices, then axial, then more pixels, then the
        order in which they were taken.
        """
        first = self.headers[0]
        axial = int(np.abs(self.stack.affine[:3, 2]).argmax()) == 2
        derived = "DERIVED" in first.acquisition.image_type
        pixels = first.planes[0].rows * first.planes[0].columns
        return derived, -len(self.stack.order), not axial, -pixels, first.series_number, first.series_uid


def find_dicom(folder: Path, paths: Iterable[PurePosixPath], source: str, alone: bool = False) -> list[StudyRecord]:
    """Studies of the DICOM files among ``paths``; what cannot be used is named in a warning and left out.

    Args:
        folder: The source.
        paths: Files relative to it that no other layout claims.
        source: The source's short name.
        alone: Whether nothing else was found, so that DICOM files without a usable series are an error.

    Raises:
        SourceError: ``alone``, and there are DICOM files but no usable series; names one and why.
    """
    faults: list[str] = []
    damaged: dict[PurePosixPath, str] = {}
    headers = _read_headers(folder, paths, faults, damaged)
    examinations: dict[tuple[str, str], list[Header]] = defaultdict(list)
    for header in headers:
        examinations[header.patient, header.study_uid].append(header)
    records = [
        _with_notes(record, damaged) for found in examinations.values() if (record := _record(found, source, faults))
    ]
    for fault in [*damaged.values(), *faults]:
        logger.warning("%s", fault)
    if alone and not records and (faults or damaged):
        why = next(iter([*damaged.values(), *faults]))
        message = f"{folder} holds DICOM files but no series of brain MRI that can be used, e.g. {why}"
        raise SourceError(message, "give whole series of FLAIR, T1, T1 with contrast or T2")
    return records


def _with_notes(record: StudyRecord, damaged: Mapping[PurePosixPath, str]) -> StudyRecord:
    """A damaged file beside a series may be one of its slices: an end of the stack can be missing unseen."""
    folders = {PurePosixPath(name).parent for files in record.images.values() for name in files}
    notes = tuple(text for path, text in damaged.items() if path.parent in folders)
    return record.model_copy(update={"notes": notes}) if notes else record


def _read_headers(
    folder: Path, paths: Iterable[PurePosixPath], faults: list[str], damaged: dict[PurePosixPath, str]
) -> list[Header]:
    """Headers of the DICOM images, each image once, in the order of the paths."""

    def read(path: PurePosixPath) -> Header | str | None:
        try:
            return read_header(folder / path, str(path))
        except SourceError as error:
            return f"left out: {error}"

    candidates = [p for p in paths if p.suffix.lower() not in OTHER_SUFFIXES and p.name.upper() != "DICOMDIR"]
    headers: dict[tuple[str, str], Header] = {}
    misnamed: list[PurePosixPath] = []
    with ThreadPoolExecutor(THREADS) as pool:
        for path, found in zip(candidates, pool.map(read, candidates), strict=True):
            if found is None and path.suffix.lower() in DICOM_SUFFIXES:
                misnamed.append(path)
            elif isinstance(found, str):
                damaged[path] = found
            elif found is not None:
                first = headers.setdefault((found.series_uid, found.instance_uid), found)
                if first is not found:
                    logger.info("%s is left out: it repeats %s", found.name, first.name)
    if misnamed:
        faults.append(
            f"left out: {len(misnamed)} files, e.g. {misnamed[0]}, are named as DICOM and hold no DICOM image"
        )
    return list(headers.values())


def _record(headers: Sequence[Header], source: str, faults: list[str]) -> StudyRecord | None:
    """One examination's record, or None where none of its series is usable."""
    first = headers[0]
    study_id = f"{first.patient}-{digest(first.study_uid, 6)}"
    by_modality: dict[str, list[Series]] = defaultdict(list)
    for members in _stacks(headers):
        series = _series(members, study_id, faults)
        if series is not None:
            by_modality[series.modality].append(series)
    chosen = _choose(by_modality, study_id, faults)
    if not chosen:
        return None
    return StudyRecord(
        study_id=study_id,
        patient_id=first.patient,
        source=source,
        layout="dicom",
        images={name: chosen[name].files for name in MODALITIES if name in chosen},
    )


def _stacks(headers: Iterable[Header]) -> list[list[Header]]:
    """Headers by series; one that holds several images of one place is split by echo time and image type.

    Dual-echo series hold PD and T2 under one UID, others magnitude and phase.
    """
    series: dict[str, list[Header]] = defaultdict(list)
    for header in headers:
        series[header.series_uid].append(header)
    result: list[list[Header]] = []
    for members in series.values():
        places = {plane.position for header in members for plane in header.planes}
        if len(places) == sum(len(header.planes) for header in members):
            result.append(members)
            continue
        parts: dict[tuple[object, ...], list[Header]] = defaultdict(list)
        for header in members:
            parts[header.acquisition.echo_ms, header.acquisition.image_type].append(header)
        result += parts.values()
    return result


def _series(headers: Sequence[Header], study_id: str, faults: list[str]) -> Series | None:
    first = headers[0]
    planes = [plane for header in headers for plane in header.planes]
    modality, why = recognise(first.acquisition)
    stack: Stack | None = None
    if first.modality != "MR":
        modality, why = None, f"its modality is {first.modality or 'not told'}, not MR"
    elif modality is not None and len(planes) < MIN_SLICES:
        modality, why = None, f"it has {len(planes)} grey slices, fewer than {MIN_SLICES}"
    elif modality is not None:
        try:
            stack = stack_planes(planes)
        except ValueError as error:
            modality, why = None, str(error)
    if modality is None or stack is None:
        faults.append(f"study {study_id}: {first.label} is left out: {why}")
        return None
    level = logging.INFO if why == "timing" else logging.DEBUG
    logger.log(level, "study %s: %s is %s by its %s", study_id, first.label, modality, why)
    return Series(tuple(headers), modality, stack)


def _choose(by_modality: Mapping[str, Sequence[Series]], study_id: str, faults: list[str]) -> dict[str, Series]:
    chosen = {}
    for modality, candidates in by_modality.items():
        best, *others = sorted(candidates, key=Series.rank)
        chosen[modality] = best
        if others:
            names = ", ".join(series.label for series in others)
            faults.append(f"study {study_id}: {modality} is taken from {best.label}, not from {names}")
    return chosen
