"""Pictures for people: masks, Grad-CAM and uncertainty laid over the slice, in the slice's own pixels."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from slicewise.errors import TooLargeError
from slicewise.evaluation.overlay_layers import COOL, HEAT, Rgb, fit_mask, grey, paint_heat, paint_regions

MAX_PIXELS = 16 << 20
# Speed counts more than size here: level 1 takes a third of the time of the default.
PNG_LEVEL = 1
HEATS = {"gradcam": HEAT, "uncertainty": COOL}


def regions_overlay(plane: NDArray[Any], mask: NDArray[np.uint8]) -> str:
    """The regions' tinted outlines over the slice, as base64 of an RGB PNG.

    Args:
        plane: ``[H, W]`` raw intensities.
        mask: ``[3, H, W]`` of WT, TC, ET.

    Raises:
        TooLargeError: More than ``MAX_PIXELS``.
    """
    side = _side(plane)
    return _png(paint_regions(grey(plane, side), mask.astype(np.bool_)), plane.shape)


def heat_overlay(plane: NDArray[Any], values: NDArray[np.float32], highest: float, kind: str) -> str:
    """A map over the slice, as base64 of an RGB PNG.

    Args:
        plane: ``[H, W]`` raw intensities.
        values: ``[H, W]``, from 0.
        highest: The value of the strongest colour.
        kind: ``gradcam`` or ``uncertainty``: the colours.

    Raises:
        TooLargeError: More than ``MAX_PIXELS``.
    """
    side = _side(plane)
    head = fit_mask(np.asarray(np.nan_to_num(plane) != 0), side)
    return _png(paint_heat(grey(plane, side), values, highest, HEATS[kind], head), plane.shape)


def _side(plane: NDArray[Any]) -> int:
    height, width = plane.shape
    if height * width > MAX_PIXELS:
        raise TooLargeError(
            f"overlay: the image is {width}×{height} pixels",
            f"ask without overlay, or send {MAX_PIXELS >> 20} megapixels",
        )
    return int(max(height, width))


def _png(square: Rgb, shape: tuple[int, ...]) -> str:
    """The layers work on squares: cut the slice's own frame out again."""
    top, left = ((len(square) - length) // 2 for length in shape)
    picture = square[top : top + shape[0], left : left + shape[1]]
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(buffer, "PNG", compress_level=PNG_LEVEL)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
