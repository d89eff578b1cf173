"""Masks and maps of a slice in the forms in which answers carry them: PNG, run lengths or npy."""

from __future__ import annotations

import base64
import gzip
import io
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from serving.codecs.images import map_png, mask_png

MaskFormat = Literal["png", "rle", "npy"]
MapFormat = Literal["png", "npy"]
PACK_LEVEL = 1


def encode_mask(mask: NDArray[np.uint8], form: MaskFormat) -> str | dict[str, list[int]]:
    """One region's mask.

    Args:
        mask: ``[H, W]`` of 0 and 1.
        form: ``png`` (base64, 0 and 255), ``npy`` (base64, uint8 0 and 1) or ``rle``.
    """
    if form == "rle":
        return run_lengths(mask)
    return mask_png(mask) if form == "png" else npy_base64(mask.astype(np.uint8, copy=False))


def encode_map(values: NDArray[np.float32], form: MapFormat, highest: float = 1.0) -> str:
    """A map ``[H, W]``: PNG from 0 to ``highest`` in 256 steps, or npy with the float32 values themselves."""
    if form == "npy":
        return npy_base64(values.astype(np.float32, copy=False))
    return map_png(np.asarray(values / highest, dtype=np.float32))


def run_lengths(mask: NDArray[np.uint8]) -> dict[str, list[int]]:
    """Uncompressed run-length code as in COCO's annotations.

    Pixels are walked down the columns, from left to right; ``counts`` are the lengths of the runs, of 0 first
    (length 0 where the first pixel is set). ``size`` is height and width.
    """
    flat = np.asarray(mask > 0).ravel(order="F")
    ends = np.flatnonzero(np.diff(flat)) + 1
    edges = np.concatenate([[0], ends, [flat.size]])
    counts: list[int] = np.diff(edges).tolist()
    if flat.size and flat[0]:
        counts.insert(0, 0)
    return {"size": [int(side) for side in mask.shape], "counts": counts}


def from_run_lengths(code: dict[str, list[int]]) -> NDArray[np.uint8]:
    """The mask ``[H, W]`` that ``run_lengths`` coded."""
    values = np.arange(len(code["counts"])) % 2
    height, width = code["size"]
    return np.repeat(values, code["counts"]).astype(np.uint8).reshape((height, width), order="F")


def npy_base64(array: NDArray[Any], *, packed: bool = False) -> str:
    """An array as base64 of an npy file, gzipped where ``packed``."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    content = buffer.getvalue()
    return base64.b64encode(quick_gzip(content) if packed else content).decode("ascii")


def quick_gzip(content: bytes) -> bytes:
    """Gzip as fast as it gets: for what is sent once."""
    return gzip.compress(content, PACK_LEVEL, mtime=0)
