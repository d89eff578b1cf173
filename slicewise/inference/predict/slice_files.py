"""One slice from a file: a picture, an npy array, or a single DICOM image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicewise.errors import InputError, SourceError, StudyError, TooLargeError
from slicewise.inference.predictor import SliceInput
from slicewise.slices.transform import UNKNOWN_MODALITY
from slicewise.studies.dicom_headers import is_dicom, read_header
from slicewise.studies.dicom_modality import recognise
from slicewise.studies.dicom_reading import load_image
from slicewise.studies.picture_layouts import IMAGE_SUFFIXES
from slicewise.studies.pictures import MAX_PIXELS, grey_pixels, open_picture

NPY = ".npy"
KINDS = "PNG, JPEG, TIFF, BMP, WebP, npy or DICOM"


@dataclass(frozen=True)
class SliceFile:
    """What a file holds.

    Attributes:
        slice: For the model.
        spacing_known: Whether the file tells the size of a pixel; else it counts as 1 mm.
    """

    slice: SliceInput
    spacing_known: bool


def is_slice_file(path: Path) -> bool:
    """Whether a file holds one slice, by its suffix, or by its first bytes where it is DICOM."""
    return path.suffix.lower() in IMAGE_SUFFIXES | {NPY} or is_single_dicom(path)


def is_single_dicom(path: Path) -> bool:
    """Whether a file is a DICOM image of one plane; a damaged one counts, so that its reader says why."""
    try:
        if not is_dicom(path):
            return False
        header = read_header(path, path.name)
    except SourceError:
        return True
    return header is not None and len(header.planes) == 1


def read_slice(path: Path, modalities: Sequence[str] | None, known: Sequence[str]) -> SliceFile:
    """Read one slice.

    Args:
        path: The file.
        modalities: Of its channels; None: the file's own, or ``unknown`` for one channel, or the model's for as many.
        known: The model's modalities.

    Raises:
        InputError: Damaged, of another kind or shape, or modalities are needed and not given; names the file.
    """
    try:
        image, found, pixel_mm = _read(path)
    except (StudyError, SourceError) as error:
        raise InputError(error.message.removeprefix(f"study {path.name}: "), error.cure) from error
    named = tuple(modalities or ()) or ((found,) if len(image) == 1 else tuple(known))
    if len(named) != len(image):
        message = f"{path.name} has {len(image)} channels, and {len(named)} modalities are named"
        raise InputError(message, "name each with --modalities, e.g. flair,t1")
    return SliceFile(SliceInput(image, named, pixel_mm or (1.0, 1.0)), pixel_mm is not None)


def _read(path: Path) -> tuple[NDArray[Any], str, tuple[float, float] | None]:
    """Intensities ``[C, H, W]``, the modality of one channel, and the pixel's spacing where it is known."""
    if path.suffix.lower() == NPY:
        return _read_npy(path), UNKNOWN_MODALITY, None
    if path.suffix.lower() in IMAGE_SUFFIXES:
        picture, _ = open_picture(path, path.name, path.name)
        return grey_pixels(picture)[np.newaxis], UNKNOWN_MODALITY, None
    if is_dicom(path):
        return _read_dicom(path)
    raise InputError(f"{path.name} is of no known kind", f"give {KINDS} files, NIfTI volumes or study folders")


def _read_npy(path: Path) -> NDArray[Any]:
    try:
        # Mapped, not read: the header may announce more than there is, or than there is memory.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError, SyntaxError) as error:
        raise InputError(f"{path.name} is no npy file, or a damaged one", "write it again with numpy.save") from error
    if array.dtype.kind not in "biuf" or array.ndim not in (2, 3) or 0 in array.shape:
        message = f"{path.name} has {array.dtype} {list(array.shape)}"
        raise InputError(message, "save numbers [height, width] or [channels, height, width]")
    if array.size > MAX_PIXELS:
        raise TooLargeError(f"{path.name} has {array.size} pixels", f"give at most {MAX_PIXELS >> 20} megapixels")
    return np.array(array if array.ndim == 3 else array[np.newaxis])


def _read_dicom(path: Path) -> tuple[NDArray[Any], str, tuple[float, float]]:
    header = read_header(path, path.name)
    if header is not None and len(header.planes) != 1:
        raise InputError(f"{path.name} has {len(header.planes)} frames", "give it by itself, as a study")
    pixels, spacing = load_image(path, path.name)
    modality = recognise(header.acquisition)[0] if header else None
    return pixels[np.newaxis], modality or UNKNOWN_MODALITY, spacing
