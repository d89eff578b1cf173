"""Files that tell more of a slice than its pixels: NIfTI and DICOM their spacing and sequence, npz its modalities."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np

from serving.codecs.budget import Budget
from serving.codecs.images import as_channels, kind_of
from serving.codecs.npz import read_npz
from serving.codecs.tensors import Array
from serving.codecs.volumes import read_dicom, read_nifti
from serving.gateway.rest.parameters import SliceParameters
from serving.gateway.rest.uploads import Item
from slicewise.errors import InputError

Kind = TypeVar("Kind", bound=SliceParameters)
READERS = {"NIfTI": read_nifti, "DICOM": read_dicom}
TELLING = frozenset({*READERS, "npz"})


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
    if kind == "npz":
        arrays = read_npz(data, item.label, Budget())
        image = as_channels(np.stack([_plane(array, item.label) for array in arrays.values()]), item.label)
        told: dict[str, Any] = {"modalities": parameters.modalities or tuple(arrays)}
    else:
        volume = READERS[kind](data, item.label, Budget())
        image = _plane(volume.slices, item.label)[np.newaxis]
        told = {"modalities": parameters.modalities or (volume.modality,)}
        told["pixel_mm"] = parameters.pixel_mm or volume.pixel_mm
    return Item(item.place, item.name, image), parameters.model_copy(update=told)


def _plane(array: Array, label: str) -> Array:
    """``[H, W]``, also of a volume of one slice."""
    if array.ndim == 3 and len(array) != 1:
        raise InputError(f"{label} holds {len(array)} slices", "send whole studies to /patient/analyze_stack")
    plane: Array = array[0] if array.ndim == 3 else array
    return plane
