"""The planes of a DICOM image and their place in space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from slicewise.studies.dicom_tags import integer, number, numbers, part

MAX_SIDE = 8192
MAX_VOXELS = 1 << 29
MAX_SPACING_MM = 1000
FRAME_PARTS = ("PlanePosition", "PlaneOrientation", "PixelMeasures")


@dataclass(frozen=True)
class Plane:
    """One 2D image in space.

    Attributes:
        name: The file (and frame), for messages.
        rows: Its height in pixels.
        columns: Its width in pixels.
        position: Centre of the first pixel in mm, LPS.
        orientation: Direction cosines of growing column index, then of growing row index, LPS.
        spacing: Distance between rows, then between columns, in mm.
        slope: Of the rescaling from stored to real values.
        intercept: Of the same.
    """

    name: str
    rows: int
    columns: int
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, ...]
    slope: float = 1.0
    intercept: float = 0.0


def planes_of(dataset: Any, name: str) -> tuple[Plane, ...]:
    """The planes of a classic (one) or enhanced multi-frame (many) image.

    Raises:
        ValueError: Size, place or spacing is missing, senseless or over the limits.
    """
    rows, columns = integer(dataset, "Rows"), integer(dataset, "Columns")
    frames = integer(dataset, "NumberOfFrames", 1)
    if min(rows, columns, frames) < 1 or max(rows, columns) > MAX_SIDE or rows * columns * frames > MAX_VOXELS:
        limit = f"the limit is {MAX_SIDE}×{MAX_SIDE} and {MAX_VOXELS >> 20} megavoxels"
        raise ValueError(f"it announces {frames} frames of {columns}×{rows} pixels; {limit}")
    groups = dataset.get("PerFrameFunctionalGroupsSequence")
    if groups is None:
        if frames > 1:
            raise ValueError("it has several frames and does not say where they lie")
        return (_plane(dataset, dataset, dataset, dataset, name, rows, columns),)
    if len(groups) != frames:
        raise ValueError(f"it announces {frames} frames and describes {len(groups)}")
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [None])[0]
    planes = []
    for count, group in enumerate(groups, start=1):
        position, orientation, measures = (part(group, shared, key) for key in FRAME_PARTS)
        rescale = part(group, shared, "PixelValueTransformation", required=False)
        frame = f"{name}, frame {count}"
        planes.append(_plane(position, orientation, measures, rescale, frame, rows, columns))
    return tuple(planes)


def _plane(position: Any, orientation: Any, measures: Any, rescale: Any, name: str, rows: int, columns: int) -> Plane:
    slope, intercept = number(rescale, "RescaleSlope"), number(rescale, "RescaleIntercept")
    plane = Plane(
        name=name,
        rows=rows,
        columns=columns,
        position=numbers(position, "ImagePositionPatient", 3),
        orientation=numbers(orientation, "ImageOrientationPatient", 6),
        spacing=numbers(measures, "PixelSpacing", 2),
        slope=1.0 if slope is None else slope,
        intercept=0.0 if intercept is None else intercept,
    )
    if min(plane.spacing) <= 0 or max(plane.spacing) > MAX_SPACING_MM:
        raise ValueError(f"PixelSpacing is {plane.spacing}")
    return plane
