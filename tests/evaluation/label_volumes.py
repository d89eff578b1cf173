"""Label volumes to judge figures on: phantoms, real scans where they are, and copies with mistakes in them."""

from __future__ import annotations

import functools
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from slicewise.config import REGIONS, PhantomConfig
from slicewise.inference.components3d import bounding_box
from slicewise.slices.regions import region_maps
from slicewise.studies.orientation import display_spacing, to_display
from slicewise.studies.phantom import make_phantom

Mask = NDArray[np.bool_]
Spacing = tuple[float, float, float]
MISTAKES = ("shifted", "eroded", "specked", "halved")
PHANTOM = PhantomConfig(n_studies=8, shape=(64, 64, 32), spacing_mm=(3.0, 3.0, 5.0))
REAL = ("BraTS2021_01482", "Brats18_CBICA_AME_1")  # many pieces in one, compact in the other


@functools.cache
def phantom_regions(index: int = 5) -> tuple[dict[str, Mask], Spacing]:
    """A phantom's regions by name, ``[D, H, W]``, and its spacing."""
    study = make_phantom(index, PHANTOM, seed=1)
    return _by_name(study.label, study.affine)


@functools.cache
def real_regions(data: Path, name: str) -> tuple[dict[str, Mask], Spacing]:
    """The regions of a real scan by name, cut to the tumour and some space around it, and its spacing."""
    file = nib.load(next((data / "brats" / name).glob("*_seg.nii*")))
    regions, spacing = _by_name(np.asarray(file.dataobj).astype(np.uint8), file.affine)
    box = bounding_box(regions["WT"], margin=8)
    assert box is not None
    return {name: np.ascontiguousarray(mask[box]) for name, mask in regions.items()}, spacing


def _by_name(label: NDArray[np.uint8], affine: NDArray[np.float64]) -> tuple[dict[str, Mask], Spacing]:
    maps = np.moveaxis(region_maps(to_display(label, affine)), -3, 0)
    return dict(zip(REGIONS, np.ascontiguousarray(maps), strict=True)), display_spacing(affine)


def with_mistake(mask: Mask, mistake: str) -> Mask:
    """A copy of a mask as a network might get it wrong; never empty unless the mask is."""
    if mistake == "shifted":
        return np.roll(mask, (1, 2, -1), axis=(0, 1, 2))
    if mistake == "eroded":
        inner = ndimage.binary_erosion(mask)
        return inner if inner.any() else mask.copy()
    if mistake == "specked":
        copy = mask.copy()
        copy[1, 1:3, 1:4] = True
        copy[-3:-1, -2, -4:-2] = True
        return copy
    copy = mask.copy()
    box = bounding_box(mask)
    if box is not None:
        copy[: (box[0].start + box[0].stop) // 2] = False
    return copy
