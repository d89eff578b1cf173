"""Files that tell more of a slice than its pixels.

NIfTI and DICOM tell their spacing and sequence, npz its modalities, and a TIFF of the LGG set (``kaggle_3m``) is
three modalities in one picture.
"""

from __future__ import annotations

import io
import warnings
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from serving.codecs.budget import Budget
from serving.codecs.images import AGAIN, as_channels, kind_of
from serving.codecs.npz import read_npz
from serving.codecs.tensors import Array
from serving.codecs.volumes import read_dicom, read_nifti
from serving.gateway.rest.parameters import SliceParameters
from serving.gateway.rest.uploads import Item
from slicewise.config import MODALITIES
from slicewise.errors import InputError, StudyError
from slicewise.slices.transform import UNKNOWN_MODALITY
from slicewise.studies.picture_layouts import LGG_NAME
from slicewise.studies.picture_reading import LGG_CHANNELS
from slicewise.studies.pictures import DAMAGE, grey_pixels, open_picture

Kind = TypeVar("Kind", bound=SliceParameters)
READERS = {"NIfTI": read_nifti, "DICOM": read_dicom}
TELLING = frozenset({*READERS, "npz", "TIFF"})


def is_telling(item: Item) -> bool:
    """Whether the item is a file of such a kind."""
    return isinstance(item.content, bytes) and kind_of(item.content) in TELLING


def opened(item: Item, parameters: Kind) -> tuple[Item, Kind]:
    """The slice in such a file, and the parameters with what the file tells; the request's own count more.

    Raises:
        TooLargeError: More pixels than one request may hold.
        InputError: Damaged, or a volume of several slices.
    """
    data = item.content
    if not isinstance(data, bytes) or (kind := kind_of(data)) not in TELLING:
        return item, parameters
    if kind == "TIFF":
        image, names = _tiff(data, item, parameters.modalities)
        told: dict[str, Any] = {"modalities": names}
    elif kind == "npz":
        arrays = read_npz(data, item.label, Budget())
        image = as_channels(np.stack([_plane(array, item.label) for array in arrays.values()]), item.label)
        told = {"modalities": parameters.modalities or tuple(arrays)}
    else:
        volume = READERS[kind](data, item.label, Budget())
        image = _plane(volume.slices, item.label)[np.newaxis]
        told = {"modalities": parameters.modalities or (volume.modality,)}
        told["pixel_mm"] = parameters.pixel_mm or volume.pixel_mm
    return Item(item.place, item.name, image), parameters.model_copy(update=told)


def _tiff(data: bytes, item: Item, given: tuple[str, ...] | None) -> tuple[Array, tuple[str, ...]]:
    """Three channels where the request names three or the file is named as the LGG set's are; else grey levels."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=["TIFF"]) as header:
                width, height = header.size
            Budget().take(width * height, f"{item.label} is {width}×{height} pixels")
            picture = open_picture(io.BytesIO(data), item.label, item.label)[0]
            grey = None if picture.mode == "RGB" else grey_pixels(picture)
    except (StudyError, *DAMAGE) as error:
        raise InputError(f"{item.label} is a truncated or damaged TIFF file", AGAIN) from error
    names = given or (LGG_CHANNELS if LGG_NAME.match(item.name) else (UNKNOWN_MODALITY,))
    if grey is not None or len(names) == 1:
        return (grey_pixels(picture) if grey is None else grey)[np.newaxis], names
    if len(names) != len(LGG_CHANNELS):
        message = f"modalities: {len(names)} names for the 3 channels of {item.label}"
        raise InputError(message, "name each of them, or one for all as grey levels")
    planes = dict(zip(names, np.asarray(picture).transpose(2, 0, 1), strict=True))
    return _lgg(planes) if tuple(planes) == LGG_CHANNELS else (np.stack(list(planes.values())), tuple(planes))


def _lgg(planes: dict[str, Array]) -> tuple[Array, tuple[str, ...]]:
    """In that set a sequence that was not scanned repeats FLAIR."""
    kept = [name for name in MODALITIES if name in planes]
    kept = [name for name in kept if name == "flair" or not np.array_equal(planes[name], planes["flair"])]
    return np.stack([planes[name] for name in kept]), tuple(kept)


def _plane(array: Array, label: str) -> Array:
    """``[H, W]``, also of a volume of one slice."""
    if array.ndim == 3 and len(array) != 1:
        raise InputError(f"{label} holds {len(array)} slices", "send whole studies to /patient/analyze_stack")
    plane: Array = array[0] if array.ndim == 3 else array
    return plane
