"""Post-processing of masks: small components, stray components, holes, and the nesting ET ⊂ TC ⊂ WT."""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator

from slicewise.config import REGIONS
from slicewise.inference.components3d import Mask, Spacing, bounding_box, check_spacing, fill_holes, label_components

AtLeastZero = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Part = Annotated[float, Field(ge=0, le=1)]


class PostProcess(BaseModel):
    """What is done to a predicted mask; by default nothing. Chosen on validation, kept in the bundle.

    The steps run in this order: holes, small components, nesting.

    Attributes:
        min_volume_mm3: Region → components (26-connected) smaller than this are dropped; 0 keeps all. A region
            left out keeps all.
        min_share: Region → components smaller than this share of the region's largest one are dropped, at 1 all but
            the largest. Needs no spacing. It costs the smaller foci of a tumour with several.
        fill_holes: Fill what a region shuts in on all sides; in a single slice, in its plane.
        hierarchy: Cut TC to WT, and ET to TC: the outer region is the one the network knows best.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_volume_mm3: dict[str, AtLeastZero] = Field(default_factory=dict)
    min_share: dict[str, Part] = Field(default_factory=dict)
    fill_holes: bool = False
    hierarchy: bool = False

    @field_validator("min_volume_mm3", "min_share")
    @classmethod
    def _known_regions(cls, value: dict[str, float]) -> dict[str, float]:
        if unknown := set(value) - set(REGIONS):
            raise ValueError(f"regions are {', '.join(REGIONS)}, not {', '.join(sorted(unknown))}")
        return value

    @property
    def is_identity(self) -> bool:
        """Whether nothing is done."""
        limits = (*self.min_volume_mm3.values(), *self.min_share.values())
        return not (self.fill_holes or self.hierarchy or any(limits))

    def apply(self, mask: NDArray[np.bool_], spacing_mm: Spacing) -> NDArray[np.bool_]:
        """Process the masks of a study.

        A volume of one slice is processed as ``apply_slice`` does.

        Args:
            mask: ``[3, D, H, W]`` bool (WT, TC, ET), in the study's own voxels.
            spacing_mm: Voxel size along the axes.

        Returns:
            ``[3, D, H, W]``; ``mask`` itself where nothing is to be done, else a new array.

        Raises:
            ValueError: The shape is another, or the spacing is not positive.
        """
        if mask.ndim != 4 or len(mask) != len(REGIONS):
            raise ValueError(f"a mask [{len(REGIONS)}, D, H, W] is wanted, not one of shape {mask.shape}")
        if self.is_identity:
            return mask
        voxel_mm3 = float(np.prod(check_spacing(spacing_mm)))
        processed = mask.astype(np.bool_)
        for at, name in enumerate(REGIONS):
            if self.fill_holes:
                processed[at] = fill_holes(processed[at])
            volume, share = self.min_volume_mm3.get(name, 0.0), self.min_share.get(name, 0.0)
            if (volume or share) and mask.shape[1] > 1:
                processed[at] = drop_small(processed[at], least_voxels(volume, voxel_mm3), share)
        return nest(processed) if self.hierarchy else processed

    def apply_slice(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Process the masks ``[3, H, W]`` of a single slice: holes and nesting only.

        What looks like a speck in one slice may be the end of a large component: without the other slices its
        volume is unknown, so nothing is dropped.
        """
        return self.apply(mask[:, None], (1.0, 1.0, 1.0))[:, 0]


def least_voxels(volume_mm3: float, voxel_mm3: float) -> int:
    """How many voxels have at least this volume, whatever the rounding of the division."""
    return math.ceil(volume_mm3 / voxel_mm3 - 1e-6)


def large_enough(sizes: NDArray[np.intp], least: int, share: float) -> NDArray[np.bool_]:
    """Which components stay.

    Args:
        sizes: ``[n]`` voxels of each.
        least: How many voxels one has at least.
        share: How many it has at least as a share of the largest one.

    Returns:
        ``[n]``; what has no voxels never stays.
    """
    largest = int(sizes.max(initial=0))
    return sizes >= max(1, least, math.ceil(share * largest - 1e-6))


def drop_small(mask: Mask, least: int, share: float = 0.0) -> Mask:
    """Keep the components (26-connected) of a mask ``[D, H, W]`` that ``large_enough`` keeps."""
    box = bounding_box(mask)
    kept = np.zeros_like(mask)
    if box is not None:
        labels, n_labels = label_components(mask[box])
        sizes = np.bincount(labels[mask[box]], minlength=n_labels + 1)
        kept[box] = large_enough(sizes, least, share)[labels]
    return kept


def nest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Cut each region of ``[3, ...]`` (WT, TC, ET) to the one around it."""
    nested = mask.astype(np.bool_)
    for inner, outer in zip(nested[1:], nested, strict=False):
        inner &= outer  # many times as fast as np.logical_and.accumulate
    return nested
