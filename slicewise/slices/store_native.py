"""A study in its own voxels: where the head is and what its mask says, one packed file beside the network's planes.

Figures are told at the scan's own resolution, against the mask as it was given, and the stored planes are cropped,
resized and without the empty slices. ``native.zz`` keeps what they lost: one byte per voxel, a zlib stream. A mask is
nearly all runs: a study of 9 MB packs into 0.1 MB.
"""

from __future__ import annotations

import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from slicewise.errors import StoreError
from slicewise.slices.store_index import CURE

# Bits 0 to 2 hold the BraTS label 0, 1, 2 or 4.
LABEL_BITS, HEAD_BIT = 0x07, 0x80
FASTEST = 1


def join_native(head: NDArray[np.bool_], labels: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    """Head and labels, ``[D, H, W]`` each, in one byte per voxel."""
    joined = head.astype(np.uint8) * np.uint8(HEAD_BIT)
    if labels is not None:
        joined |= labels & np.uint8(LABEL_BITS)
    return joined


def split_native(joined: NDArray[np.uint8]) -> tuple[NDArray[np.bool_], NDArray[np.uint8]]:
    """Head and labels, ``[D, H, W]`` each."""
    return (joined & np.uint8(HEAD_BIT)) > 0, joined & np.uint8(LABEL_BITS)


def pack_native(joined: NDArray[np.uint8]) -> bytes:
    """The content of ``native.zz``."""
    return zlib.compress(np.ascontiguousarray(joined).data, FASTEST)


def unpack_native(path: Path, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Read ``native.zz``; memory is bounded by ``shape``, whatever the stream holds.

    Raises:
        StoreError: Missing, unreadable, damaged, or not of this shape.
    """
    size = math.prod(shape)
    stream = zlib.decompressobj()
    try:
        data = stream.decompress(path.read_bytes(), size + 1)
    except FileNotFoundError as error:
        raise StoreError(f"{path} is missing", CURE) from error
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}", CURE) from error
    except zlib.error as error:
        raise StoreError(f"{path} is damaged: {error}", CURE) from error
    if len(data) != size or not stream.eof:
        raise StoreError(f"{path} is damaged: it does not hold {shape} voxels", CURE)
    return np.frombuffer(data, dtype=np.uint8).reshape(shape)
