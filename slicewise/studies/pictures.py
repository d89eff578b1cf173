"""2D picture files (PNG, JPEG, TIFF, BMP, WebP) into arrays."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from slicewise.errors import StudyError

MAX_PIXELS = 64 << 20
DEEP_MODES = frozenset({"I", "F", "I;16", "I;16L", "I;16B", "I;16N"})
ALPHA_MODES = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})
DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    TypeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


def open_picture(source: Path | BinaryIO, study_id: str, name: str = "") -> tuple[Image.Image, tuple[str, ...]]:
    """Decode a picture's first frame, turned upright by its EXIF orientation.

    Args:
        source: A file, or its content as a stream.
        study_id: Named in errors.
        name: What the source is called in errors; a path names itself.

    Returns:
        The decoded image and warnings.

    Raises:
        StudyError: Missing, truncated, no picture, or over ``MAX_PIXELS`` (checked before decoding).
    """
    name = name or str(source)
    try:
        with Image.open(source) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                limit = f"more than {MAX_PIXELS >> 20} megapixels"
                raise StudyError(study_id, f"{name} is {width}×{height}, {limit}", "scale the picture down")
            n_frames = getattr(image, "n_frames", 1)
            warnings = (f"{name} has {n_frames} frames; the first is used",) if n_frames > 1 else ()
            image.load()
            return ImageOps.exif_transpose(image), warnings
    except FileNotFoundError as error:
        raise StudyError(study_id, f"{name} is missing", "copy the file back, or leave it out") from error
    except DAMAGE as error:
        reason = " ".join(str(error).split())
        message = f"{name} is truncated, damaged or no picture ({reason})"
        raise StudyError(
            study_id, message, "copy or download the file again, as PNG, JPEG, TIFF, BMP or WebP"
        ) from error


def grey_pixels(image: Image.Image) -> NDArray[Any]:
    """One intensity per pixel: luminance (ITU-R 601) of colours, alpha composited over black, depth kept.

    Returns:
        ``[H, W]`` uint8, or uint16/int32/float32 for pictures of more than 8 bits.
    """
    if image.mode in DEEP_MODES:
        pixels = np.asarray(image)
        return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    if image.mode in ALPHA_MODES or "transparency" in image.info:
        coloured = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", coloured.size, (0, 0, 0, 255)), coloured)
    if image.mode not in ("L", "1", "RGB"):
        image = image.convert("RGB")
    return np.asarray(image.convert("L"))
