"""npz files: one array for each modality, under its name."""

from __future__ import annotations

import io
import zipfile
from pathlib import PurePosixPath

import numpy as np

from serving.codecs.budget import Budget
from serving.codecs.images import AGAIN, Array, decode_npy
from serving.codecs.zips import DAMAGE
from slicewise.errors import InputError

MAX_MEMBERS = 16
# One header of numpy; an archive whose members are larger than their arrays is refused.
SPARE_BYTES = 4096


def read_npz(data: bytes, field: str, budget: Budget) -> dict[str, Array]:
    """The arrays ``[H, W]`` or ``[Z, H, W]`` by name, all of one shape.

    Raises:
        TooLargeError: They unpack to more than the budget.
        InputError: Damaged, of different shapes, or not arrays of numbers.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            if not 1 <= len(members) <= MAX_MEMBERS:
                raise InputError(f"{field} holds {len(members)} arrays", "save one array for each modality")
            arrays = {_name(member): _member(archive, member, field, budget) for member in members}
    except DAMAGE as error:
        raise InputError(f"{field} is a truncated or damaged npz file", AGAIN) from error
    if len({array.shape for array in arrays.values()}) > 1:
        raise InputError(f"{field} holds arrays of different shapes", "bring the modalities onto one grid")
    return arrays


def _name(member: zipfile.ZipInfo) -> str:
    return PurePosixPath(member.filename).name.removesuffix(".npy")


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, field: str, budget: Budget) -> Array:
    """One array; its declared size is believed only as far as the budget and the reading goes."""
    name = f"{field}: {_name(member)[:40]!r}"
    budget.take(member.file_size // np.dtype(np.float64).itemsize, f"{name} unpacks to {member.file_size} bytes")
    with archive.open(member) as stream:
        content = stream.read(member.file_size + 1)
    array = decode_npy(content, name, Budget())
    if array.ndim not in (2, 3):
        raise InputError(f"{name} has shape {list(array.shape)}", "save [height, width] or [slices, height, width]")
    return array
