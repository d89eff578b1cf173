"""The files of an uploaded study, in a private folder that nobody hears of."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from serving.codecs.images import kind_of
from serving.codecs.zips import EMPTY_MAGIC, MAGIC, ZipLimits, unpack
from serving.gateway.rest.uploads import Item
from serving.status import UnsupportedMediaError
from slicewise.errors import InputError

KINDS = {"NIfTI": "nifti", "DICOM": "dicom", "TIFF": "tiff", "PNG": "picture", "JPEG": "picture", "npy": "picture"}
HEAD_BYTES = 540
CURE = "send one NIfTI file per modality, DICOM files or a zip of them, or a stack of PNG, JPEG or npy pictures"
UNUSUAL = re.compile(r"[^A-Za-z0-9._+-]")


@dataclass(frozen=True)
class StoredFile:
    """One file of an upload.

    Attributes:
        field: The form field or place in the request by which it came.
        path: Where it lies, in the upload's folder.
        kind: ``nifti``, ``dicom``, ``tiff`` or ``picture``; None for anything else (only inside archives).
    """

    field: str
    path: Path
    kind: str | None


def store_items(items: Sequence[Item], folder: Path, limits: ZipLimits) -> tuple[StoredFile, ...]:
    """Write an upload's items into a folder, archives unpacked.

    Args:
        items: The upload.
        folder: An empty folder of its own.
        limits: Of archives, and of the number of files.

    Raises:
        UnsupportedMediaError: An item of no known kind.
        InputError: An item is bad or its name comes twice.
    """
    if len(items) > limits.files:
        raise InputError(f"{len(items)} files were sent", f"send at most {limits.files}")
    contents = [_content(item) for item in items]
    if len(items) == 1 and contents[0].startswith((MAGIC, EMPTY_MAGIC)):
        paths = unpack(contents[0], folder, limits, items[0].label)
        return tuple(StoredFile("", path, kind_of_file(_head(path))) for path in sorted(paths, key=_natural))
    return tuple(
        _store(item, data, folder, index) for index, (item, data) in enumerate(zip(items, contents, strict=True))
    )


def kind_of_file(head: bytes) -> str | None:
    """``nifti``, ``dicom``, ``tiff`` or ``picture`` by a file's first bytes."""
    return KINDS.get(kind_of(head) or "")


def _content(item: Item) -> bytes:
    if isinstance(item.content, InputError):
        raise item.content
    if isinstance(item.content, bytes):
        return item.content
    buffer = io.BytesIO()
    np.save(buffer, item.content, allow_pickle=False)
    return buffer.getvalue()


def _store(item: Item, data: bytes, folder: Path, index: int) -> StoredFile:
    kind = kind_of_file(data[:HEAD_BYTES])
    if kind is None:
        if data.startswith((MAGIC, EMPTY_MAGIC)):
            raise InputError(f"{item.label} is an archive beside other files", "send one zip archive alone")
        raise UnsupportedMediaError(f"{item.label} is of no known kind", CURE)
    name = UNUSUAL.sub("_", item.name).lstrip(".") or f"file_{index}"
    path = folder / name
    if path.exists():
        path = folder / f"{index}_{name}"
    path.write_bytes(data)
    return StoredFile(item.place, path, kind)


def _head(path: Path) -> bytes:
    with path.open("rb") as handle:
        return handle.read(HEAD_BYTES)


def _natural(path: Path) -> list[tuple[int, str]]:
    """Names in the order of the numbers in them: 2 before 10."""
    parts = re.split(r"(\d+)", str(path))
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]
