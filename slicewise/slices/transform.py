"""One slice: find the head, normalise, crop, resize.

This is the one preprocessing function of the whole system: the slice store, evaluation, the TorchServe handler
and the command line all come through ``look_at`` and ``render`` with the parameters stored in the bundle. It
looks at a single slice only, because a slice is all that a caller who sends one picture can give; statistics of
the whole volume would make training and serving differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicewise.config import SliceConfig
from slicewise.errors import InputError
from slicewise.slices import kernels
from slicewise.slices.crop import SliceGeometry, crop_box, restore_map
from slicewise.slices.foreground import Box, find_foreground
from slicewise.slices.normalise import normalise

UNKNOWN_MODALITY = "unknown"
# Every other number type becomes one of the two that the compiled loops are made for.
READY = (np.dtype(np.int16), np.dtype(np.float32))
WIDENED = {"b": np.int16, "u1": np.int16, "i1": np.int16, "i2": np.int16}


@dataclass(frozen=True)
class Look:
    """Where the head is in a slice, before anything is rendered.

    Attributes:
        mask: ``[H, W]`` uint8: 1 in head or brain.
        head: The mask's bounds.
        area: Its pixels.
        geometry: The network's square.
    """

    mask: NDArray[np.uint8]
    head: Box
    area: int
    geometry: SliceGeometry

    @property
    def share(self) -> float:
        """The share of the frame that is head or brain."""
        return self.area / self.mask.size


@dataclass(frozen=True)
class PreparedSlice:
    """What the network is fed.

    Attributes:
        image: ``[C, size, size]`` float16, normalised, 0 outside the head and in missing channels.
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
    """Normalise one slice inside the head, crop it and resize it.

    Args:
        image: ``[C, H, W]`` raw intensities.
        modalities: The channels' names; ``unknown`` enters by ``config.unknown_modality``.
        config: The bundle's parameters.
        pixel_mm: Row and column spacing in mm; only their ratio matters here.

    Raises:
        InputError: Wrong shape or names, values that are not finite, or nothing but background.
        TooLargeError: A long narrow slice whose square would not fit in memory.
    """
    at = check_channels(image, modalities, config)
    if not all(np.isfinite(size) and size > 0 for size in pixel_mm):
        raise InputError(f"pixel_mm is {list(pixel_mm)}", "send two sizes above 0 in mm")
    planes = [as_plane(channel) for channel in image]
    require_finite(planes)
    look = look_at(planes, config, pixel_mm)
    output = np.empty((len(config.modalities), config.size, config.size), dtype=np.float16)
    present = render(planes, at, look, config, output)
    if not present.any():
        raise InputError("image is constant: there is nothing to see", "send a slice with tissue in it")
    return PreparedSlice(output, present, look.geometry, look.mask.view(np.bool_))


def check_channels(image: NDArray[np.generic], modalities: Sequence[str], config: SliceConfig) -> tuple[int, ...]:
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
    return tuple(config.modalities.index(name) for name in names)


def as_plane(channel: NDArray[Any]) -> NDArray[Any]:
    """A plane in one of the two number types that the compiled loops take, contiguous, copied only if needed."""
    if channel.dtype in READY and channel.flags.c_contiguous:
        return channel
    kind = channel.dtype.kind if channel.dtype.kind == "b" else f"{channel.dtype.kind}{channel.dtype.itemsize}"
    with np.errstate(over="ignore"):  # an overflow becomes an infinity, which is refused
        return np.ascontiguousarray(channel, dtype=WIDENED.get(kind, np.float32))


def require_finite(planes: Sequence[NDArray[Any]]) -> None:
    """Refuse planes that hold anything but numbers.

    Raises:
        InputError: NaN or infinite values.
    """
    if not all(np.isfinite(plane).all() for plane in planes if plane.dtype.kind == "f"):
        raise InputError("image holds NaN or infinite values", "replace them by 0 before sending")


def look_at(planes: Sequence[NDArray[Any]], config: SliceConfig, pixel_mm: tuple[float, float]) -> Look:
    """Find the head and the network's square.

    Args:
        planes: ``[H, W]`` each, as ``as_plane`` gives them.
        config: The bundle's parameters.
        pixel_mm: Row and column spacing in mm.

    Raises:
        TooLargeError: A long narrow slice whose square would not fit in memory.
    """
    mask, head, area = find_foreground(planes, config.foreground_fraction)
    height, width = mask.shape
    return Look(mask, head, area, crop_box((height, width), head, config, pixel_mm))


def render(
    planes: Sequence[NDArray[Any]],
    at: Sequence[int],
    look: Look,
    config: SliceConfig,
    output: NDArray[np.float16],
) -> NDArray[np.bool_]:
    """Write the normalised square of each plane into its channel of ``output``.

    Args:
        planes: ``[H, W]`` each, as ``as_plane`` gives them.
        at: The channel of each plane.
        look: What ``look_at`` found.
        config: The bundle's parameters.
        output: ``[C, size, size]``, overwritten: 0 for missing channels and constant planes.

    Returns:
        ``[C]`` bool: the channels that hold something.
    """
    geometry = look.geometry
    place = kernels.copy_box if geometry.box == (config.size, config.size) else kernels.resample
    present = np.zeros(len(config.modalities), dtype=np.bool_)
    for channel, plane in zip(at, planes, strict=True):
        patch = normalise(plane, look.mask, look.head, config)
        if patch is not None:
            place(patch, look.head, geometry.square, output[channel].view(np.uint16))
            present[channel] = True
    output[~present] = 0
    return present


def compile_loops(config: SliceConfig) -> None:
    """Go through every compiled loop once, so that no caller waits for numba: seconds where nothing is kept.

    Numba compiles anew for each number type, for what may be written to and what may not (a binary request's tensor
    is read where it lies), and for a map's window in a slice beside a map that fills it.
    """
    size, whole = config.size, config.model_copy(update={"crop": "frame"})
    for kind in (np.int16, np.float32):
        for side in (size, size + 8):
            image = np.arange(side * side, dtype=kind).reshape(1, side, side)
            for writeable in (True, False):
                image.flags.writeable = writeable
                prepare_slice(image, (UNKNOWN_MODALITY,), whole)
    for frame in (size, size + 8):
        restore_map(np.zeros((size, size), np.float32), SliceGeometry((frame, frame), 0, 0, (size, size)))
