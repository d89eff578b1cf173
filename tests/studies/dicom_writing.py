"""Writes DICOM series for tests."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

MR_IMAGE = UID("1.2.840.10008.5.1.4.1.1.4")
ENHANCED_MR_IMAGE = UID("1.2.840.10008.5.1.4.1.1.4.1")
COUNTER = itertools.count(10_000_000)
AXIAL = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
SAGITTAL = ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0))


def oblique(degrees: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Axial, turned about two axes."""
    a, b = np.deg2rad([degrees, degrees / 2])
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    turned = about_x @ about_z
    return tuple(turned[:, 0].tolist()), tuple(turned[:, 1].tolist())


def write_series(
    folder: Path,
    volume: NDArray[Any],
    *,
    axes: Sequence[Sequence[float]] = AXIAL,
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0),
    name: str = "IM{:04d}",
    shuffle: bool = False,
    **tags: Any,
) -> list[Path]:
    """Write ``volume`` [column, row, slice] as one file per slice.

    ``spacing`` is between columns, rows and slices in mm; ``origin`` is the first voxel's place, LPS;
    ``tags`` go into every file (``StudyInstanceUID`` to join series; None leaves a tag out).
    """
    folder.mkdir(parents=True, exist_ok=True)
    series = {"StudyInstanceUID": generate_uid(), "SeriesInstanceUID": generate_uid(), **tags}
    normal = np.cross(axes[0], axes[1])
    numbers = np.arange(volume.shape[2])
    names = np.random.default_rng(0).permutation(numbers) if shuffle else numbers
    files = []
    for number in numbers:
        place = np.asarray(origin) + normal * spacing[2] * number
        dataset = image(volume[:, :, number].T, **series)
        dataset.ImagePositionPatient = [f"{value:.9g}"[:16] for value in place]
        dataset.ImageOrientationPatient = [f"{value:.9g}"[:16] for value in (*axes[0], *axes[1])]
        dataset.PixelSpacing = [spacing[1], spacing[0]]
        dataset.InstanceNumber = int(number) + 1
        for key in [key for key, value in tags.items() if value is None and key in dataset]:
            delattr(dataset, key)
        path = folder / name.format(int(names[number]))
        dataset.save_as(path, enforce_file_format=True)
        files.append(path)
    return files


def image(pixels: NDArray[Any], **tags: Any) -> FileDataset:
    """A classic MR image without its place."""
    dataset = _dataset(MR_IMAGE)
    _set_pixels(dataset, pixels)
    dataset.SliceThickness = 99  # wrong on purpose: the positions count
    for key, value in tags.items():
        if value is not None:
            setattr(dataset, key, value)
    return dataset


def write_enhanced(
    path: Path,
    volume: NDArray[Any],
    *,
    axes: Sequence[Sequence[float]] = AXIAL,
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
    order: Sequence[int] | None = None,
    slopes: Sequence[float] | None = None,
    **tags: Any,
) -> Path:
    """Write ``volume`` [column, row, slice] as one enhanced multi-frame file, frames in ``order``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    order = list(range(volume.shape[2])) if order is None else list(order)
    dataset = _dataset(ENHANCED_MR_IMAGE)
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    _set_pixels(dataset, np.stack([volume[:, :, index].T for index in order]))
    dataset.NumberOfFrames = len(order)
    shared, measures, orientation = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = [spacing[1], spacing[0]]
    orientation.ImageOrientationPatient = [*axes[0], *axes[1]]
    shared.PixelMeasuresSequence = DicomSequence([measures])
    shared.PlaneOrientationSequence = DicomSequence([orientation])
    dataset.SharedFunctionalGroupsSequence = DicomSequence([shared])
    normal = np.cross(axes[0], axes[1])
    frames = []
    for count, index in enumerate(order):
        frame, position = Dataset(), Dataset()
        position.ImagePositionPatient = [f"{value:.9g}"[:16] for value in normal * spacing[2] * index]
        frame.PlanePositionSequence = DicomSequence([position])
        if slopes is not None:
            rescale = Dataset()
            rescale.RescaleSlope, rescale.RescaleIntercept = slopes[count], 0
            frame.PixelValueTransformationSequence = DicomSequence([rescale])
        frames.append(frame)
    dataset.PerFrameFunctionalGroupsSequence = DicomSequence(frames)
    for key, value in tags.items():
        setattr(dataset, key, value)
    dataset.save_as(path, enforce_file_format=True)
    return path


def _dataset(sop_class: UID) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = f"1.2.826.0.1.{next(COUNTER):08d}"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, meta.MediaStorageSOPInstanceUID
    dataset.Modality, dataset.PatientID, dataset.PatientName = "MR", "P-4711", "Doe^Jane"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "M"]
    return dataset


def _set_pixels(dataset: FileDataset, pixels: NDArray[Any]) -> None:
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.dtype.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = np.ascontiguousarray(pixels).tobytes()
