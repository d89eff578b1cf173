"""What is repaired in a study instead of refused, always with a warning."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicewise.errors import StudyError

Array = NDArray[Any]


def replace_non_finite(data: Array, name: str, study_id: str, warnings: list[str]) -> Array:
    """NaN and infinity become 0, with a warning."""
    if data.dtype.kind != "f":
        return data
    bad = ~np.isfinite(data)
    if bad.all():
        raise StudyError(study_id, f"{name} holds no finite value", "export or download the file again")
    if bad.any():
        warnings.append(f"{name}: {int(bad.sum())} NaN or infinite values set to 0")
        data = np.where(bad, data.dtype.type(0), data)
    return data


def drop_constant(channels: dict[str, Array], study_id: str, warnings: list[str]) -> dict[str, Array]:
    """Leave out modalities in which every voxel is the same: there is nothing in them."""
    kept = {name: data for name, data in channels.items() if data.min() != data.max()}
    warnings += [f"{name} is constant and counts as missing" for name in channels if name not in kept]
    if not kept:
        names = ", ".join(channels)
        raise StudyError(study_id, f"every modality ({names}) is constant", "export or download the study again")
    return kept
