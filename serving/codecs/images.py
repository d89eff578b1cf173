"""Image files and arrays to slices, and maps to PNG.

The kind of a file is told by its first bytes, never by its name. Pictures are decoded by the function that
training uses, so that the network sees the same pixels.
"""

from __future__ import annotations

import base64
import io
import math
import tokenize
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serving.codecs.budget import Budget
from serving.status import UnsupportedMediaError
from slicewise.config import SliceConfig
from slicewise.errors import InputError, StudyError, TooLargeError
from slicewise.inference.predictor import SliceInput
from slicewise.slices.transform import UNKNOWN_MODALITY
from slicewise.studies.pictures import DAMAGE, MAX_PIXELS, grey_pixels, open_picture

Array = NDArray[Any]
# First bytes of a kind of file: where they stand, and what they are.
_MAGIC = (
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x93NUMPY", "npy"),
    (0, b"PK\x03\x04", "npz"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"\x1f\x8b", "NIfTI"),
    (344, b"n+1\0", "NIfTI"),
    (4, b"n+2\0", "NIfTI"),
    (128, b"DICM", "DICOM"),
)
AGAIN = "send the whole file again"


def kind_of(data: bytes) -> str | None:
    """``PNG``, ``JPEG``, ``TIFF``, ``npy``, ``npz``, ``NIfTI`` (gzip too), ``DICOM`` by the first bytes, or None."""
    return next((kind for at, magic, kind in _MAGIC if data[at : at + len(magic)] == magic), None)


def decode_file(data: bytes, field: str = "image", budget: Budget | None = None) -> Array:
    """The intensities in a PNG, JPEG or npy file: ``[C, H, W]``, one channel for pictures.

    Args:
        data: The file's content.
        field: What to call it in errors.
        budget: Pixels that may be used; ``MAX_PIXELS`` when None.

    Raises:
        UnsupportedMediaError: Of another kind.
        TooLargeError: More pixels than that.
        InputError: Truncated, damaged, animated, or an array that is not an image.
    """
    kind = kind_of(data)
    budget = budget or Budget()
    if kind == "npy":
        return as_channels(decode_npy(data, field, budget), field)
    if kind not in ("PNG", "JPEG"):
        raise UnsupportedMediaError(f"{field} is not a PNG, JPEG or npy file", "send one of these, unwrapped")
    return _decode_picture(data, kind, field, budget)


def as_channels(array: Array, field: str = "image") -> Array:
    """``[H, W]`` or ``[C, H, W]`` numbers as ``[C, H, W]``.

    Raises:
        InputError: Another shape, or not real numbers.
    """
    if array.dtype.kind not in "biuf":
        raise InputError(f"{field} holds {array.dtype}, not real numbers", "send integers or floats")
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise InputError(
            f"{field} has shape {list(array.shape)}", "send [height, width] or [channels, height, width]"
        )
    return array[np.newaxis] if array.ndim == 2 else array


def to_slice(
    array: Array,
    modalities: tuple[str, ...] | None,
    config: SliceConfig,
    pixel_mm: tuple[float, float] = (1.0, 1.0),
) -> SliceInput:
    """An image ``[C, H, W]`` as the Predictor's input.

    Args:
        array: Raw intensities.
        modalities: The channels' names; None: ``unknown`` for one channel, the model's own for as many as it has.
        config: The bundle's preprocessing.
        pixel_mm: Row and column spacing.

    Raises:
        InputError: Modalities are needed and not given.
    """
    if modalities is None:
        if array.shape[0] == 1:
            modalities = (UNKNOWN_MODALITY,)
        elif array.shape[0] == len(config.modalities):
            modalities = config.modalities
        else:
            known = ", ".join(config.modalities)
            raise InputError(f"modalities: not given for {array.shape[0]} channels", f"name each of them: {known}")
    return SliceInput(array, modalities, pixel_mm)


def mask_png(mask: NDArray[np.uint8]) -> str:
    """A mask ``[H, W]`` of 0 and 1 as base64 of a PNG with 0 and 255."""
    return _png(np.where(mask > 0, np.uint8(255), np.uint8(0)))


def map_png(values: NDArray[np.float32]) -> str:
    """A map ``[H, W]`` in 0..1 as base64 of a PNG in 0..255."""
    return _png(np.round(np.clip(values, 0.0, 1.0) * 255).astype(np.uint8))


def _png(pixels: NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=False)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _decode_picture(data: bytes, kind: str, field: str, budget: Budget) -> Array:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=[kind]) as image:
                (width, height), n_frames = image.size, getattr(image, "n_frames", 1)
            budget.take(width * height, f"{field} is {width}×{height} pixels")
            if n_frames > 1:
                raise InputError(f"{field} has {n_frames} frames", "send each frame as a picture of its own")
            return grey_pixels(open_picture(io.BytesIO(data), field, field)[0])[np.newaxis]
    except Image.DecompressionBombError as error:
        raise TooLargeError(f"{field} has too many pixels", f"send at most {MAX_PIXELS >> 20} megapixels") from error
    except (StudyError, *DAMAGE) as error:
        raise InputError(f"{field} is a truncated or damaged {kind} file", AGAIN) from error


def decode_npy(data: bytes, field: str, budget: Budget) -> Array:
    """The array in an npy file; its header is read first, as ``np.load`` would allocate whatever it declares.

    Raises:
        TooLargeError: More elements than the budget.
        InputError: Truncated, damaged, or no numbers.
    """
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(stream)
    except (ValueError, EOFError, SyntaxError, tokenize.TokenError) as error:
        raise InputError(f"{field} has a damaged npy header", "write it again with numpy.save") from error
    if dtype.hasobject:
        raise InputError(f"{field} holds Python objects", "save an array of numbers with numpy.save")
    budget.take(math.prod(shape), f"{field} has shape {list(shape)}")
    expected = math.prod(shape) * dtype.itemsize
    if len(data) - stream.tell() != expected:
        raise InputError(f"{field} is a truncated npy file: {len(data) - stream.tell()} of {expected} bytes", AGAIN)
    array: Array = np.load(io.BytesIO(data), allow_pickle=False)
    return array
