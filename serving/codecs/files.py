"""Any file that the service reads, as slices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from serving.codecs.budget import Budget, check_count
from serving.codecs.images import Array, as_channels, decode_file, kind_of, to_slice
from serving.codecs.npz import read_npz
from serving.codecs.parameters import Parameters
from serving.codecs.volumes import Volume, read_dicom, read_nifti
from slicewise.config import SliceConfig
from slicewise.inference.predictor import SliceInput


@dataclass(frozen=True)
class Decoded:
    """What one file or array holds.

    Attributes:
        slices: One or more.
        is_volume: Whether each slice is answered by itself.
        pixel_mm: Row and column spacing; None where neither the file nor the request tells it.
    """

    slices: tuple[SliceInput, ...]
    is_volume: bool = False
    pixel_mm: tuple[float, float] | None = None


def decode_slices(data: bytes, field: str, parameters: Parameters, config: SliceConfig, budget: Budget) -> Decoded:
    """Read a file; its kind is told by its content.

    Args:
        data: PNG, JPEG, npy, npz, NIfTI (also gzipped) or DICOM.
        field: What to call it in errors.
        parameters: For the modalities and the spacing, which win over the file's own.
        config: The bundle's preprocessing.
        budget: What the request may still unpack to.

    Raises:
        UnsupportedMediaError: Of no known kind.
        TooLargeError: More than the budget.
        InputError: Damaged, or of a shape or modality that the model does not take.
    """
    kind = kind_of(data)
    if kind == "NIfTI":
        return _of_volume(read_nifti(data, field, budget), parameters, config)
    if kind == "DICOM":
        return _of_volume(read_dicom(data, field, budget), parameters, config)
    if kind == "npz":
        return _of_npz(data, field, parameters, config, budget)
    return of_array(decode_file(data, field, budget), parameters, config)


def of_array(
    array: Array, parameters: Parameters, config: SliceConfig, modalities: tuple[str, ...] | None = None
) -> Decoded:
    """An array ``[C, H, W]`` as one slice; ``modalities`` None takes the request's."""
    named = parameters.modalities if modalities is None else modalities
    item = to_slice(array, named, config, parameters.pixel_mm or (1.0, 1.0))
    return Decoded((item,), pixel_mm=parameters.pixel_mm)


def _of_volume(volume: Volume, parameters: Parameters, config: SliceConfig) -> Decoded:
    spacing = parameters.pixel_mm or volume.pixel_mm
    named = parameters.modalities or (volume.modality,)
    slices = tuple(to_slice(plane[np.newaxis], named, config, spacing) for plane in volume.slices)
    return Decoded(slices, len(slices) > 1, spacing)


def _of_npz(data: bytes, field: str, parameters: Parameters, config: SliceConfig, budget: Budget) -> Decoded:
    arrays = read_npz(data, field, budget)
    names = tuple(arrays)
    spacing = parameters.pixel_mm or (1.0, 1.0)
    stack = np.stack([array if array.ndim == 3 else array[np.newaxis] for array in arrays.values()])
    check_count(stack.shape[1], field)
    is_volume = next(iter(arrays.values())).ndim == 3
    slices = tuple(to_slice(as_channels(stack[:, z], field), names, config, spacing) for z in range(stack.shape[1]))
    return Decoded(slices, is_volume, parameters.pixel_mm)
