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

from serving.status import UnsupportedMediaError
from slicewise.config import SliceConfig
from slicewise.errors import InputError, StudyError, TooLargeError
from slicewise.inference.predictor import SliceInput
from slicewise.slices.transform import UNKNOWN_MODALITY
from slicewise.studies.pictures import DAMAGE, MAX_PIXELS, grey_pixels, open_picture

Array = NDArray[Any]
_MAGIC = {b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG", b"\x93NUMPY": "npy"}
AGAIN = "send the whole file again"


def kind_of(data: bytes) -> str | None:
    """``PNG``, ``JPEG`` or ``npy`` by the first bytes; None for anything else."""
    return next((kind for magic, kind in _MAGIC.items() if data.startswith(magic)), None)


def decode_file(data: bytes, field: str = "image") -> Array:
    """The intensities in a PNG, JPEG or npy file: ``[C, H, W]``, one channel for pictures.

    Args:
        data: The file's content.
        field: What to call it in errors.

    Raises:
        UnsupportedMediaError: Of no known kind.
        TooLargeError: More pixels than ``MAX_PIXELS``.
        InputError: Truncated, damaged, animated, or an array that is not an image.
    """
    kind = kind_of(data)
    if kind is None:
        raise UnsupportedMediaError(f"{field} is not a PNG, JPEG or npy file", "send one of these, unwrapped")
    return _decode_npy(data, field) if kind == "npy" else _decode_picture(data, kind, field)


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


def _decode_picture(data: bytes, kind: str, field: str) -> Array:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=[kind]) as image:
                (width, height), n_frames = image.size, getattr(image, "n_frames", 1)
            _check_size(width * height, f"{field} is {width}×{height} pixels")
            if n_frames > 1:
                raise InputError(f"{field} has {n_frames} frames", "send each frame as a picture of its own")
            return grey_pixels(open_picture(io.BytesIO(data), field, field)[0])[np.newaxis]
    except Image.DecompressionBombError as error:
        raise TooLargeError(f"{field} has too many pixels", _size_cure()) from error
    except (StudyError, *DAMAGE) as error:
        raise InputError(f"{field} is a truncated or damaged {kind} file", AGAIN) from error


def _decode_npy(data: bytes, field: str) -> Array:
    """The header is read first, as ``np.load`` would allocate whatever it declares."""
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(stream)
    except (ValueError, EOFError, SyntaxError, tokenize.TokenError) as error:
        raise InputError(f"{field} has a damaged npy header", "write it again with numpy.save") from error
    if dtype.hasobject:
        raise InputError(f"{field} holds Python objects", "save an array of numbers with numpy.save")
    _check_size(math.prod(shape[-2:]), f"{field} has shape {list(shape)}")
    expected = math.prod(shape) * dtype.itemsize
    if len(data) - stream.tell() != expected:
        raise InputError(f"{field} is a truncated npy file: {len(data) - stream.tell()} of {expected} bytes", AGAIN)
    return as_channels(np.load(io.BytesIO(data), allow_pickle=False), field)


def _check_size(pixels: int, what: str) -> None:
    if pixels > MAX_PIXELS:
        raise TooLargeError(what, _size_cure())


def _size_cure() -> str:
    return f"send at most {MAX_PIXELS >> 20} megapixels"
