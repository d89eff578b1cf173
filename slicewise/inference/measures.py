"""What a clinician would measure on a predicted (or reference) mask: volumes, extents, diameters, side.

For research: the measures describe a mask, and are as good as the mask.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from slicewise.config import REGIONS
from slicewise.inference.components3d import MM3_PER_ML, Mask, Spacing, bounding_box, check_spacing, label_components
from slicewise.inference.diameters import measure_diameters
from slicewise.inference.laterality import Laterality, find_laterality


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RegionMeasures(_Record):
    """The measures of one region; an empty mask has volume 0, no slices, and None for the rest.

    Attributes:
        volume_ml: From voxel count and voxel size.
        slices: How many axial slices it touches.
        first_slice: The lowest of them, from 0.
        last_slice: The highest, inclusive.
        diameters_mm: The largest diameter on one axial slice and the largest perpendicular to it (RANO).
        diameter_slice: The slice on which they are measured.
        components: How many separate pieces (26-connected).
        centroid: Mean position as (slice, row, column), in voxels.
    """

    volume_ml: float
    slices: int
    first_slice: int | None = None
    last_slice: int | None = None
    diameters_mm: tuple[float, float] | None = None
    diameter_slice: int | None = None
    components: int
    centroid: tuple[float, float, float] | None = None


class StudyMeasures(_Record):
    """The measures of one study.

    Attributes:
        regions: WT, TC and ET.
        laterality: Of WT.
    """

    regions: dict[str, RegionMeasures]
    laterality: Laterality


def measure(mask: NDArray[np.bool_], spacing_mm: Spacing, head: Mask | None = None) -> StudyMeasures:
    """Measure the three regions of a study.

    Args:
        mask: ``[3, D, H, W]`` (WT, TC, ET), axial slices in display orientation, in the study's own voxels.
        spacing_mm: Between slices, rows and columns.
        head: ``[D, H, W]``, head or brain, from which the mid-plane is estimated; without it no side is told.

    Raises:
        ValueError: The shapes do not fit, or the spacing is not positive.
    """
    if mask.ndim != 4 or len(mask) != len(REGIONS) or (head is not None and head.shape != mask.shape[1:]):
        shapes = f"mask {mask.shape}" + ("" if head is None else f", head {head.shape}")
        raise ValueError(f"{shapes}: a mask [{len(REGIONS)}, D, H, W] and a head [D, H, W] are wanted")
    spacing_mm = check_spacing(spacing_mm)
    mask = mask.astype(np.bool_, copy=False)
    regions = {name: measure_region(mask[at], spacing_mm) for at, name in enumerate(REGIONS)}
    return StudyMeasures(regions=regions, laterality=find_laterality(mask[0], head, spacing_mm))


def measure_region(mask: Mask, spacing_mm: Spacing) -> RegionMeasures:
    """Measure one region.

    Args:
        mask: ``[D, H, W]``.
        spacing_mm: Between slices, rows and columns.
    """
    box = bounding_box(mask)
    if box is None:
        return RegionMeasures(volume_ml=0.0, slices=0, components=0)
    inner = mask[box]
    n_voxels = int(np.count_nonzero(inner))
    touched = box[0].start + np.flatnonzero(inner.any(axis=(1, 2)))
    diameters = measure_diameters(mask, spacing_mm)
    return RegionMeasures(
        volume_ml=n_voxels * float(np.prod(spacing_mm)) / MM3_PER_ML,
        slices=len(touched),
        first_slice=int(touched[0]),
        last_slice=int(touched[-1]),
        diameters_mm=(diameters.largest_mm, diameters.perpendicular_mm) if diameters else None,
        diameter_slice=diameters.slice if diameters else None,
        components=label_components(inner)[1],
        centroid=_centroid(inner, tuple(span.start for span in box), n_voxels),
    )


def _centroid(mask: Mask, origin: tuple[int, ...], n_voxels: int) -> tuple[float, float, float]:
    middle = []
    for axis in range(3):
        counts = mask.sum(axis=tuple(other for other in range(3) if other != axis))
        middle.append(origin[axis] + float(counts @ np.arange(len(counts))) / n_voxels)
    return middle[0], middle[1], middle[2]
