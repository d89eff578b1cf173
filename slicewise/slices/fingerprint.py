"""What identifies a picture: its fine detail as a thumbnail, and a perceptual hash of that.

Coarse shape says nothing here: all heads are ellipses. A thumbnail therefore holds the image's middle frequencies
with the local contrast divided out, which also removes brightness, contrast and most of a gamma curve. Each image
has two views: the stored square as it is, and a box around what is bright, which forgives a letterbox, a stretch
or a crop that the preprocessing took for part of the head.

The hash is a pHash (signs of low DCT coefficients; Zauner, "Implementation and benchmarking of perceptual image
hash functions", 2010). Turned and mirrored copies need no second transform: a flip changes the sign of the odd
coefficients, a transposition transposes them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import fft, ndimage

THUMBNAIL = 64
HASH_SIDE = 12
HASH_BITS = HASH_SIDE * HASH_SIDE
WORDS = -(-HASH_BITS // 64)
ORIENTATIONS = 8
VIEWS = 2
# Of the largest bright component: smaller ones are text and specks.
SMALL_COMPONENT = 0.1
# Of the way from the border's grey to Otsu's threshold: on it, a bright skull jumps in and out of the box.
THRESHOLD = 0.7
# Rows and columns with a smaller share of bright pixels are left out of the box.
MIN_BRIGHT = 0.03
DETAIL, NEIGHBOURHOOD, CONTRAST_FLOOR = 4.0, 8.0, 0.15
# The hash fades the skull out between these radii, where 1 touches the thumbnail's edge.
FADE = (0.6, 0.9)

Plane = NDArray[np.float32]
Hashes = NDArray[np.uint64]
Box = tuple[int, int, int, int]


_RADIUS = np.hypot(*np.meshgrid(*2 * [np.linspace(-1, 1, THUMBNAIL)]))
_WINDOW = np.cos(np.clip((_RADIUS - FADE[0]) / (FADE[1] - FADE[0]), 0, 1) * np.pi / 2) ** 2


def thumbnails(image: NDArray[np.floating]) -> Plane:
    """The fine detail of a stored image, in both views.

    Args:
        image: ``[C, H, W]`` as stored: z-scores, 0 outside the head and in missing channels.

    Returns:
        ``[2, 64, 64]``.
    """
    plane = image.astype(np.float32).sum(axis=0)
    inside = plane != 0
    # Outside the head is 0, which is the head's mean: a grey that would hide the outline.
    plane = np.where(inside, plane, plane[inside].min() if inside.any() else 0.0).astype(np.float32)
    picture = Image.fromarray(plane)
    size = (THUMBNAIL, THUMBNAIL)
    views = (picture.resize(size, Image.Resampling.BILINEAR, box=box) for box in (None, bright_box(plane)))
    return np.stack([detail(np.asarray(view, dtype=np.float32)) for view in views])


def bright_box(plane: Plane) -> Box:
    """Left, top, right and bottom of what stands out from the border's grey."""
    border = float(np.median(np.concatenate([plane[0], plane[-1], plane[:, 0], plane[:, -1]])))
    threshold = otsu(plane)
    if threshold > border:
        threshold = border + THRESHOLD * (threshold - border)
    labels, count = ndimage.label(plane > threshold)
    everything = (0, 0, plane.shape[1], plane.shape[0])
    if count == 0:
        return everything
    areas = np.bincount(labels.ravel())
    areas[0] = 0
    kept = (areas >= SMALL_COMPONENT * areas.max())[labels]
    rows = np.flatnonzero(kept.mean(axis=1) >= MIN_BRIGHT)
    columns = np.flatnonzero(kept.mean(axis=0) >= MIN_BRIGHT)
    if len(rows) == 0 or len(columns) == 0:
        return everything
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def otsu(plane: Plane) -> float:
    """The threshold that separates two classes best (Otsu, IEEE Trans. Syst. Man Cybern. 1979)."""
    counts, edges = np.histogram(plane, bins=128)
    centres = (edges[:-1] + edges[1:]) / 2
    below, sums = np.cumsum(counts), np.cumsum(counts * centres)
    above = below[-1] - below
    means = sums / np.maximum(below, 1), (sums[-1] - sums) / np.maximum(above, 1)
    return float(edges[1 + np.argmax(below * above * (means[0] - means[1]) ** 2)])


def detail(plane: Plane) -> Plane:
    """``plane`` without its low frequencies, divided by its local contrast."""
    spread = float(plane.std())
    fine = (plane - ndimage.gaussian_filter(plane, DETAIL)) / (spread if spread > 0 else 1.0)
    contrast = np.sqrt(ndimage.gaussian_filter(fine * fine, NEIGHBOURHOOD)) + CONTRAST_FLOOR
    return np.asarray(fine / contrast, dtype=np.float32)


def oriented(plane: Plane, orientation: int) -> Plane:
    """``plane`` transposed (4), mirrored top to bottom (2) and left to right (1), by the bits of 0–7."""
    turned = plane.T if orientation & 4 else plane
    turned = turned[::-1] if orientation & 2 else turned
    return np.ascontiguousarray(turned[:, ::-1] if orientation & 1 else turned)


def hashes(thumbnail: Plane) -> Hashes:
    """The hash of each orientation of a thumbnail, ``[8, 3]``: 144 bits and padding."""
    low = fft.dctn(thumbnail * _WINDOW, norm="ortho")[:HASH_SIDE, :HASH_SIDE]
    odd = np.where(np.arange(HASH_SIDE) % 2, -1.0, 1.0)
    codes = np.zeros((ORIENTATIONS, WORDS * 64), dtype=bool)
    for orientation in range(ORIENTATIONS):
        turned = low.T if orientation & 4 else low
        turned = turned * odd[:, None] if orientation & 2 else turned
        turned = turned * odd if orientation & 1 else turned
        codes[orientation, :HASH_BITS] = turned.ravel() > 0
    return np.packbits(codes, axis=1).view(np.uint64)
