"""One slice: normalise, crop, resize, and the way back.

This is the one preprocessing function of the whole system: the slice store, evaluation, the TorchServe handler
and the command line all call ``prepare_slice`` with the parameters stored in the bundle. It looks at a single
slice only, because a slice is all that a caller who sends one picture can give; statistics of the whole volume
would make training and serving differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from slicewise.config import SliceConfig
from slicewise.errors import InputError, TooLargeError

UNKNOWN_MODALITY = "unknown"
SMALL_COMPONENT = 0.1
MIN_STD = 1e-6
MAX_BOX_PIXELS = 64_000_000
T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True)
class SliceGeometry:
    """Where the network's square lies in the slice, in pixels; it may reach beyond the frame.

    Attributes:
        frame: Height and width of the slice.
        top: First row of the box.
        left: First column of the box.
        box: Height and width of the box.
    """

    frame: tuple[int, int]
    top: int
    left: int
    box: tuple[int, int]


@dataclass(frozen=True)
class PreparedSlice:
    """What the network is fed.

    Attributes:
        image: ``[C, size, size]`` float16 z-scores, 0 outside the head and in missing channels.
        present: ``[C]`` bool: which of the network's channels the slice really has.
        geometry: The way back to the slice's own pixels.
        foreground: ``[H, W]`` bool: head or brain.
    """

    image: NDArray[np.float16]
    present: NDArray[np.bool_]
    geometry: SliceGeometry
    foreground: NDArray[np.bool_]


def prepare_slice(
    image: NDArray[np.generic],
    modalities: Sequence[str],
    config: SliceConfig,
    pixel_mm: tuple[float, float] = (1.0, 1.0),
) -> PreparedSlice:
    """Normalise one slice inside the head, crop it to the head and resize it.

    Args:
        image: ``[C, H, W]`` raw intensities.
        modalities: The channels' names; ``unknown`` enters by ``config.unknown_modality``.
        config: The bundle's parameters.
        pixel_mm: Row and column spacing in mm; only their ratio matters here.

    Raises:
        InputError: Wrong shape or names, values that are not finite, or nothing but background.
    """
    names = check_channels(image, modalities, config)
    if not all(np.isfinite(size) and size > 0 for size in pixel_mm):
        raise InputError(f"pixel_mm is {list(pixel_mm)}", "send two sizes above 0 in mm")
    raw = np.ascontiguousarray(image, dtype=np.float32)
    if not np.isfinite(raw).all():
        raise InputError("image holds NaN or infinite values", "replace them by 0 before sending")
    foreground = foreground_mask(raw, config.foreground_fraction)
    geometry = crop_box(foreground, config, pixel_mm)
    output = np.zeros((len(config.modalities), config.size, config.size), dtype=np.float16)
    present = np.zeros(len(config.modalities), dtype=bool)
    for name, channel in zip(names, raw, strict=True):
        scores = z_score(channel, foreground, config.clip)
        if scores is not None:
            at = config.modalities.index(name)
            output[at] = _resize_box(scores, geometry, config.size)
            present[at] = True
    if not present.any():
        raise InputError("image is constant: there is nothing to see", "send a slice with tissue in it")
    return PreparedSlice(output, present, geometry, foreground)


def check_channels(image: NDArray[np.generic], modalities: Sequence[str], config: SliceConfig) -> tuple[str, ...]:
    """The network's channel for each of the image's channels.

    Raises:
        InputError: Not ``[C, H, W]``, an unknown or repeated modality, or a count that does not match.
    """
    if image.ndim != 3 or 0 in image.shape:
        raise InputError(f"image has shape {list(image.shape)}", "send [channels, height, width]")
    if image.dtype.kind not in "biuf":
        raise InputError(f"image holds {image.dtype}, not numbers", "send integers or floats")
    if image.shape[0] != len(modalities):
        raise InputError(
            f"image has {image.shape[0]} channels but modalities names {len(modalities)}: {list(modalities)}",
            "name one modality per channel",
        )
    names = tuple(config.unknown_modality if name == UNKNOWN_MODALITY else name for name in modalities)
    for name in names:
        if name not in config.modalities:
            known = ", ".join((*config.modalities, UNKNOWN_MODALITY))
            raise InputError(f"modalities: {name!r} is not one of the model's", f"use {known}")
    if len(set(names)) != len(names):
        raise InputError(f"modalities: {list(modalities)} names a channel twice", "name each channel once")
    return names


def foreground_mask(image: NDArray[np.float32], fraction: float) -> NDArray[np.bool_]:
    """Head or brain of a slice ``[C, H, W]``: above a fraction of the robust range in any channel, holes filled.

    The same rule serves skull-stripped volumes (background exactly 0), heads with skull and JPEG noise around
    them. Components much smaller than the largest (letters, specks) are dropped; two temporal lobes are kept.
    """
    mask = np.zeros(image.shape[1:], dtype=bool)
    for channel in image:
        low, high = np.percentile(channel, (1.0, 99.5))
        mask |= channel > low + fraction * (high - low)
    mask = ndimage.binary_fill_holes(mask)
    labels, count = ndimage.label(mask)
    if count > 1:
        areas = np.bincount(labels.ravel())
        areas[0] = 0
        mask = (areas >= SMALL_COMPONENT * areas.max())[labels]
    return mask if mask.any() else np.ones_like(mask)


def crop_box(foreground: NDArray[np.bool_], config: SliceConfig, pixel_mm: tuple[float, float]) -> SliceGeometry:
    """The square (in mm) around the head that the network sees."""
    height, width = foreground.shape
    rows = np.flatnonzero(foreground.any(axis=1))
    columns = np.flatnonzero(foreground.any(axis=0))
    extent_mm = max((rows[-1] - rows[0] + 1) * pixel_mm[0], (columns[-1] - columns[0] + 1) * pixel_mm[1])
    frame_mm = max(height * pixel_mm[0], width * pixel_mm[1])
    side_mm = max(extent_mm * config.crop_margin, frame_mm * config.min_crop_fraction)
    box = (max(1, round(side_mm / pixel_mm[0])), max(1, round(side_mm / pixel_mm[1])))
    if box[0] * box[1] > MAX_BOX_PIXELS:
        raise TooLargeError(
            f"a slice of {height}×{width} pixels needs a square crop of {box[0]}×{box[1]}",
            f"send at most {MAX_BOX_PIXELS // 10**6} million pixels in the square around the head",
        )
    top = int(rows[0] + rows[-1] + 1 - box[0]) // 2
    left = int(columns[0] + columns[-1] + 1 - box[1]) // 2
    return SliceGeometry((height, width), top, left, box)


def z_score(channel: NDArray[np.float32], foreground: NDArray[np.bool_], clip: float) -> NDArray[np.float32] | None:
    """z-scores ``[H, W]`` inside the foreground, clipped, 0 outside; None where the channel is constant."""
    values = channel[foreground].astype(np.float64)
    mean, std = values.mean(), values.std()
    if std < MIN_STD * max(1.0, abs(mean)):
        return None
    scores = np.clip((channel.astype(np.float64) - mean) / std, -clip, clip)
    return np.where(foreground, scores, 0.0).astype(np.float32)


def prepare_labels(labels: NDArray[np.uint8], geometry: SliceGeometry, size: int) -> NDArray[np.uint8]:
    """The label plane ``[H, W]`` cropped and resized like its slice, by the nearest pixel."""
    patch = Image.fromarray(_cut(labels, geometry))
    return np.asarray(patch.resize((size, size), Image.Resampling.NEAREST), dtype=np.uint8)


def restore_map(plane: NDArray[np.float32], geometry: SliceGeometry) -> NDArray[np.float32]:
    """A map ``[size, size]`` of the network, put back into the slice's own pixels ``[H, W]``; 0 outside the box."""
    box_height, box_width = geometry.box
    patch = Image.fromarray(np.ascontiguousarray(plane, dtype=np.float32))
    values = np.asarray(patch.resize((box_width, box_height), Image.Resampling.BILINEAR))
    restored = np.zeros(geometry.frame, dtype=np.float32)
    target, source = _overlap(geometry)
    restored[target] = values[source]
    return restored


def pixel_area_mm2(geometry: SliceGeometry, size: int, pixel_mm: tuple[float, float]) -> float:
    """Area in mm² of one pixel of the network's square."""
    return geometry.box[0] * pixel_mm[0] * geometry.box[1] * pixel_mm[1] / size**2


def _overlap(geometry: SliceGeometry) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The part of the frame that the box covers, in the frame's and in the box's coordinates."""
    frame_part, box_part = [], []
    for start, length, limit in zip((geometry.top, geometry.left), geometry.box, geometry.frame, strict=True):
        first, last = max(start, 0), min(start + length, limit)
        frame_part.append(slice(first, last))
        box_part.append(slice(first - start, last - start))
    return (frame_part[0], frame_part[1]), (box_part[0], box_part[1])


def _cut(plane: NDArray[T], geometry: SliceGeometry) -> NDArray[T]:
    """The box's content, 0 where it reaches beyond the frame."""
    patch = np.zeros(geometry.box, dtype=plane.dtype)
    source, target = _overlap(geometry)
    patch[target] = plane[source]
    return patch


def _resize_box(plane: NDArray[np.float32], geometry: SliceGeometry, size: int) -> NDArray[np.float32]:
    """Crop to the box and resize to ``size`` with an anti-aliasing bilinear filter."""
    patch = Image.fromarray(_cut(plane, geometry))
    return np.asarray(patch.resize((size, size), Image.Resampling.BILINEAR))
