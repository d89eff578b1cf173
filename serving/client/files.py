"""Images and studies as the parts of a multipart form."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from slicewise.errors import InputError

# An array is [H, W] or [C, H, W]; a string is a path.
Image = NDArray[Any] | Pillow.Image | bytes | Path | str
StudyPaths = Path | str | Iterable[Path | str] | Mapping[str, Path | str]
# Field of the form, name of the file, content.
Part = tuple[str, tuple[str, bytes]]
EXACT_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})


def image_part(image: Image, field: str = "file", index: int = 0) -> Part:
    """An image as a part; nothing of it is lost.

    Args:
        image: An array, a picture, a file's content, or a path.
        field: The form's.
        index: For the name of what has none.

    Raises:
        InputError: The file cannot be read, or the array is none of numbers.
    """
    if isinstance(image, Path | str):
        return field, (Path(image).name, _read(Path(image)))
    if isinstance(image, bytes):
        return field, (f"image_{index}", image)
    buffer = io.BytesIO()
    if isinstance(image, Pillow.Image) and image.mode in EXACT_MODES:
        image.save(buffer, "PNG")
        return field, (f"image_{index}.png", buffer.getvalue())
    array = np.asarray(image)
    if array.dtype.hasobject:
        raise InputError(f"image {index} is no array of numbers", "give numbers [H, W] or [C, H, W]")
    np.save(buffer, array, allow_pickle=False)
    return field, (f"image_{index}.npy", buffer.getvalue())


def study_parts(paths: StudyPaths) -> tuple[Part, ...]:
    """A study's files as parts.

    Args:
        paths: A file (NIfTI, or a zip of DICOM), a folder, several files, or files by modality.

    Raises:
        InputError: A file cannot be read, or there is none.
    """
    if isinstance(paths, Mapping):
        return tuple((field, (Path(path).name, _read(Path(path)))) for field, path in paths.items())
    given = [Path(paths)] if isinstance(paths, Path | str) else [Path(path) for path in paths]
    files = [file for path in given for file in (_below(path) if path.is_dir() else [path])]
    if not files:
        raise InputError("the study has no files", "give a NIfTI file per modality, or a folder of DICOM files")
    return tuple(("files", (file.name, _read(file))) for file in files)


def _below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", "give a file that exists") from error
