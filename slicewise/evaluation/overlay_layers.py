"""Layers of an overlay: grey image, tinted regions with outlines, colour maps. Arrays in, 8-bit RGB out."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from slicewise.config import REGIONS

Rgb = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Plane = NDArray[np.floating]

# Told apart in all common kinds of colour blindness; the innermost region is the strongest.
COLOURS = {"WT": "#2ab7a4", "TC": "#f2a900", "ET": "#ff4d5e"}
EXTRA, MISSED = "#ff5cd6", "#4da3ff"
TINT = 0.26
HEAT_FROM, HEAT_ALPHA = 0.12, 0.6
# Anchors of matplotlib's inferno and viridis.
HEAT = ((0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164))
COOL = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))


def rgb(colour: str) -> NDArray[np.float32]:
    """``#rrggbb`` as three numbers from 0 to 255."""
    return np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)], dtype=np.float32)


def grey(plane: Plane, size: int) -> Rgb:
    """An image plane, windowed to the 1st–99.5th percentile of what is not 0, as ``[size, size, 3]``.

    What is outside the head, 0 in the store, is black. A plane of another shape than square keeps its shape
    within the square.
    """
    clean = np.nan_to_num(np.asarray(plane, dtype=np.float32))
    inside = clean != 0
    low, high = np.percentile(clean[inside], (1, 99.5)) if inside.any() else (0.0, 1.0)
    scaled = np.clip((clean - low) / max(float(high - low), 1e-6), 0, 1)
    # The darkest grey of the head stays above black, so that dark tissue and background can be told apart.
    picture = np.where(inside, 12 + scaled * 243, 0).astype(np.uint8)
    return np.repeat(fit(picture, size, smooth=True)[:, :, None], 3, axis=2)


def fit(plane: NDArray[np.uint8], size: int, *, smooth: bool) -> NDArray[np.uint8]:
    """Enlarge or shrink an 8-bit plane into a square of ``size``, its shape kept, black around it."""
    height, width = plane.shape
    scale = size / max(height, width)
    method = Image.Resampling.BICUBIC if smooth else Image.Resampling.BILINEAR
    target = (max(1, round(width * scale)), max(1, round(height * scale)))
    resized = np.asarray(Image.fromarray(plane).resize(target, method))
    if resized.shape == (size, size):
        return resized
    square = np.zeros((size, size), dtype=np.uint8)
    top, left = (size - resized.shape[0]) // 2, (size - resized.shape[1]) // 2
    square[top : top + resized.shape[0], left : left + resized.shape[1]] = resized
    return square


def fit_mask(mask: Mask, size: int) -> Mask:
    """A mask at the size of the picture, with smooth borders."""
    return fit(mask.astype(np.uint8) * 255, size, smooth=False) > 127


def outline(mask: Mask) -> Mask:
    """The inner border of a mask, one pixel wide, with its corners."""
    padded = np.pad(mask, 1)
    inner = padded[1:-1, :-2] & padded[1:-1, 2:] & padded[:-2, 1:-1] & padded[2:, 1:-1]
    return mask & ~inner


def paint_regions(base: Rgb, regions: Mask) -> Rgb:
    """Tint and outline the regions ``[3, H, W]`` on a picture; the innermost lies on top."""
    picture = base.copy()
    borders = []
    for name, region in zip(REGIONS, regions, strict=True):
        if region.any():
            mask, colour = fit_mask(region, len(base)), rgb(COLOURS[name])
            picture[mask] = (1 - TINT) * picture[mask] + TINT * colour
            borders.append((outline(mask), colour))
    for border, colour in borders:
        picture[border] = colour
    return picture


def paint_errors(base: Rgb, reference: Mask, predicted: Mask) -> Rgb:
    """One region's mistakes: what the model adds, what it misses; the outline is the reference's."""
    wanted, said = fit_mask(reference, len(base)), fit_mask(predicted, len(base))
    picture = base.copy()
    for mask, colour in ((said & ~wanted, EXTRA), (wanted & ~said, MISSED)):
        picture[mask] = 0.35 * picture[mask] + 0.65 * rgb(colour)
    picture[outline(wanted)] = 255
    return picture


def paint_heat(
    base: Rgb, values: Plane, highest: float, anchors: tuple[tuple[int, int, int], ...], head: Mask
) -> Rgb:
    """A map laid over the head of a picture; what is near 0 is left out, so that the anatomy shows."""
    share = np.clip(np.nan_to_num(np.asarray(values, dtype=np.float32)) / highest, 0, 1)
    level = fit((share * 255).astype(np.uint8), base.shape[0], smooth=False)
    strong = (level > HEAT_FROM * 255) & head
    picture = base.copy()
    # Faint where the map begins, so that there is no hard border that the map does not have.
    alpha = HEAT_ALPHA * np.clip((level[strong, None] / np.float32(255) - HEAT_FROM) / 0.2, 0, 1)
    picture[strong] = (1 - alpha) * base[strong] + alpha * ramp(anchors)[level[strong]]
    return picture


@functools.cache
def ramp(anchors: tuple[tuple[int, int, int], ...]) -> Rgb:
    """256 colours through the anchors."""
    at = np.linspace(0, 1, len(anchors))
    wanted = np.linspace(0, 1, 256)
    columns = [np.interp(wanted, at, [anchor[channel] for anchor in anchors]) for channel in range(3)]
    return np.stack(columns, axis=1).round().astype(np.uint8)
