"""Scans as grey levels for the eye: a window from the 1st to the 99.5th percentile of what is not background."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from slicewise.errors import InputError, TooLargeError

WINDOW = (1.0, 99.5)
MAX_PIXELS = 16 << 20
SAMPLED = 1 << 20  # voxels that the percentiles are taken from
# The darkest grey of a head stays above black, so that dark tissue and background can be told apart.
DARKEST = 12
NEWER_ENHANCING, ENHANCING, BINARY_FROM = 3, 4, 127


def grey_levels(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Intensities of any shape as grey levels 0 to 255 of the same shape; exactly 0 stays black."""
    flat = values.reshape(-1)
    sampled = flat[:: max(1, flat.size // SAMPLED)]
    inside = sampled[np.isfinite(sampled) & (sampled != 0)]
    if inside.size == 0:
        return np.zeros(values.shape, np.uint8)
    low, high = np.percentile(inside, WINDOW)
    finite = np.nan_to_num(values.astype(np.float32), nan=low, posinf=high, neginf=low)
    scaled = (finite - np.float32(low)) / np.float32(max(high - low, 1e-6))
    levels: NDArray[np.uint8] = (DARKEST + np.clip(scaled, 0, 1) * (255 - DARKEST)).astype(np.uint8)
    levels[values == 0] = 0
    return levels


def grey_png(planes: NDArray[Any], most: int = 0) -> bytes:
    """Planes ``[C, H, W]``, each with its own window, one below the other in one grey PNG.

    Args:
        planes: Intensities.
        most: The longer side of each, at most; 0 leaves the size.

    Raises:
        TooLargeError: More than ``MAX_PIXELS``.
    """
    _check(planes)
    levels = [Image.fromarray(grey_levels(plane)) for plane in planes]
    if 0 < most < max(levels[0].size):
        for level in levels:
            level.thumbnail((most, most))
    return _png(np.concatenate([np.asarray(level) for level in levels]))


def label_png(plane: NDArray[Any]) -> tuple[bytes, str]:
    """A mask ``[H, W]`` as a PNG of BraTS's values, and how it was read.

    ``one region``: the file holds one value beside 0 that is not BraTS's oedema or enhancing tumour (1, or 255 of a
    picture): whatever is set is tumour, of a kind that is not told. ``BraTS labels``: 1, 2 and 4, or 3 for 4.

    Raises:
        TooLargeError: More than ``MAX_PIXELS``.
        InputError: Neither.
    """
    _check(plane)
    clean = np.rint(np.nan_to_num(plane))
    if clean.max(initial=0) > ENHANCING:
        return _png(np.where(clean > BINARY_FROM, 1, 0).astype(np.uint8)), "one region"
    values = set(np.unique(clean).astype(int).tolist()) - {0}
    if values <= {1}:
        return _png(clean.astype(np.uint8)), "one region"
    if not values <= {1, 2, NEWER_ENHANCING, ENHANCING} or {NEWER_ENHANCING, ENHANCING} <= values:
        told = ", ".join(map(str, sorted(values)))
        raise InputError(f"the mask holds the values {told}", "send 0 and 255, 0 and 1, or BraTS's 0, 1, 2, 4")
    return _png(np.where(clean == NEWER_ENHANCING, ENHANCING, clean).astype(np.uint8)), "BraTS labels"


def _check(array: NDArray[Any]) -> None:
    if array.size > MAX_PIXELS:
        raise TooLargeError(f"the image has {array.size} pixels", f"send at most {MAX_PIXELS >> 20} megapixels")


def _png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
