"""What is repaired in a study instead of refused, always with a warning."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicewise.errors import StudyError

Array = NDArray[Any]
CHUNK = 1 << 16  # voxels looked at together: few enough to stay in the processor's cache


def replace_non_finite(data: Array, name: str, study_id: str, warnings: list[str]) -> Array:
    """NaN and infinity become 0, with a warning."""
    if data.dtype.kind != "f" or all(np.isfinite(chunk).all() for chunk in _chunks(data)):
        return data
    bad = ~np.isfinite(data)
    if bad.all():
        raise StudyError(study_id, f"{name} holds no finite value", "export or download the file again")
    warnings.append(f"{name}: {int(bad.sum())} NaN or infinite values set to 0")
    return np.where(bad, data.dtype.type(0), data)


def drop_constant(channels: dict[str, Array], study_id: str, warnings: list[str]) -> dict[str, Array]:
    """Leave out modalities in which every voxel is the same: there is nothing in them."""
    kept = {name: data for name, data in channels.items() if not is_constant(data)}
    warnings += [f"{name} is constant and counts as missing" for name in channels if name not in kept]
    if not kept:
        names = ", ".join(channels)
        raise StudyError(study_id, f"every modality ({names}) is constant", "export or download the study again")
    return kept


def is_constant(data: Array) -> bool:
    """Whether all values are the same; stops at the first that differs."""
    first = data.flat[0]
    return all((chunk == first).all() for chunk in _chunks(data))


def contains(data: Array, value: float) -> bool:
    """Whether ``value`` occurs; stops at its first occurrence."""
    return any((chunk == value).any() for chunk in _chunks(data))


def distinct_values(data: Array) -> Array:
    """The values that occur, ascending; quick where most of a volume is one value, as in labels."""
    found: list[Array] = []
    for chunk in _chunks(data):
        low, high = chunk.min(), chunk.max()
        found.append(np.array([low]) if low == high else np.unique(chunk))
    return np.unique(np.concatenate(found))


def _chunks(data: Array) -> Iterator[Array]:
    """The values in the order in which they lie in memory, flat, without a copy of the whole."""
    flat = data.ravel(order="K")
    for start in range(0, flat.size, CHUNK):
        yield flat[start : start + CHUNK]
