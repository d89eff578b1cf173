"""The slice store's arrays: npy files, written with their digest and opened as memory maps.

The digest is XXH3-128, which finds accidents and copies. It is not made to withstand somebody who wants two files to
have one digest: whoever can change a store's files can change its index too. SHA-256 took 15 % of preprocessing.
"""

from __future__ import annotations

import io
import math
import mmap
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from slicewise.errors import StoreError
from slicewise.files import CHUNK_BYTES, atomic_folder
from slicewise.slices.store_index import CURE, IMAGE, LABEL, NATIVE, STUDIES
from slicewise.slices.store_native import pack_native

MAX_HEADER_BYTES = 1024
# What numpy writes, whatever blanks it pads with; nothing in it is ever evaluated.
HEADER = re.compile(
    rb"\x93NUMPY\x01\x00(?P<length>..)\{'descr': '(?P<dtype><f2|\|u1)', 'fortran_order': False, "
    rb"'shape': \((?P<shape>\d{1,18}(?:, \d{1,18}){0,7}),?\), \} *\n",
    re.DOTALL,
)


class Digests(NamedTuple):
    """Of a study's files: ``image.npy``, ``label.npy`` where there is a mask, ``native.zz``."""

    image: str
    label: str | None
    native: str


def write_study(
    folder: Path,
    key: str,
    images: NDArray[np.float16],
    labels: NDArray[np.uint8] | None,
    native: NDArray[np.uint8],
) -> Digests:
    """Write one study's arrays to ``studies/<key>`` in one step; whatever was there before is replaced.

    Any number of processes may write different studies at the same time. To add studies to a store that is in
    use, write them into the folder of ``staging`` and hand them over with ``append_studies``.

    Args:
        folder: The store's folder, or the staging folder of an append.
        key: The study's key.
        images: ``[n, C, size, size]``; best filled as an ordinary array and written once, which takes a quarter
            of the time that filling a new memory map does.
        labels: ``[n, size, size]``, or None where there is no mask.
        native: ``[D, H, W]``, from ``join_native``.

    Returns:
        The files' digests.

    Raises:
        StoreError: An array is of another type or shape, or the disk is full.
    """
    _check("images", images, np.float16, 4)
    _check("native", native, np.uint8, 3)
    if labels is not None:
        _check("labels", labels, np.uint8, 3)
        if len(labels) != len(images):
            raise StoreError(f"study {key}: {len(images)} slices but {len(labels)} label planes")
    try:
        with atomic_folder(folder / STUDIES / key) as target:
            packed = pack_native(native)
            (target / NATIVE).write_bytes(packed)
            label = None if labels is None else _write(target / LABEL, labels)
            return Digests(_write(target / IMAGE, images), label, xxhash.xxh3_128_hexdigest(packed))
    except OSError as error:
        raise StoreError(f"study {key} cannot be written: {error}", "free space on the disk") from error


def _check(name: str, array: NDArray[Any], dtype: type[np.generic], ndim: int) -> None:
    if array.dtype != dtype or array.ndim != ndim or not array.size:
        raise StoreError(f"{name} are {array.dtype} {array.shape}, not {ndim} axes of {np.dtype(dtype)}")


def _write(path: Path, array: NDArray[Any]) -> str:
    """Write a version-1.0 npy file, and give the digest of its bytes, taken while they are in memory."""
    data = np.ascontiguousarray(array)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(data))
    digest = xxhash.xxh3_128()
    with path.open("wb") as handle:
        for part in (header.getbuffer(), data.data.cast("B")):
            handle.write(part)
            digest.update(part)
    return digest.hexdigest()


def open_array(path: Path, dtype: str, shape: tuple[int, ...]) -> np.memmap[Any, Any]:
    """Map an npy file of a known type and shape.

    Args:
        path: The file.
        dtype: ``<f2`` or ``|u1``.
        shape: What it must hold.

    Returns:
        A read-only map; pages are read when they are touched. It keeps one file open (Python duplicates the
        descriptor of a map), so keep no more of them than the process may have open files.

    Raises:
        StoreError: Missing, unreadable, or not of this type, shape and length.
    """
    if not path.is_file():
        raise StoreError(f"{path} is missing", CURE)
    try:
        with path.open("rb") as handle:
            offset = _data_offset(path, handle.read(MAX_HEADER_BYTES), dtype, shape)
            expected = offset + np.dtype(dtype).itemsize * math.prod(shape)
            if handle.seek(0, io.SEEK_END) != expected:
                raise StoreError(f"{path} has {handle.tell()} bytes, not {expected}", CURE)
            return np.memmap(handle, dtype=dtype, mode="r", offset=offset, shape=shape)
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}", CURE) from error


def will_need(mapped: np.memmap[Any, Any], row: int) -> None:
    """Ask the system for all of a row's pages at once; it would otherwise fetch them piece by piece when touched.

    Nothing waits for the disk here. On a disk to which the row is new this makes reading it several times as fast.
    """
    pages: object = mapped.base
    step = mapped[0].nbytes
    if isinstance(pages, mmap.mmap) and hasattr(mmap, "MADV_WILLNEED"):
        begin = mapped.offset + row * step
        first = begin - begin % mmap.PAGESIZE
        pages.madvise(mmap.MADV_WILLNEED, first, begin + step - first)


def _data_offset(path: Path, head: bytes, dtype: str, shape: tuple[int, ...]) -> int:
    match = HEADER.match(head)
    if match is None or match.end() != 10 + int.from_bytes(match["length"], "little"):
        raise StoreError(f"{path} is damaged: not the npy header of a slice store", CURE)
    found = tuple(int(number) for number in match["shape"].split(b","))
    if (match["dtype"].decode(), found) != (dtype, shape):
        raise StoreError(f"{path} holds {match['dtype'].decode()} {found}, not {dtype} {shape}", CURE)
    return match.end()


def digest_of(path: Path) -> str:
    """The digest of a file, read in pieces."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as handle:
        while chunk := handle.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
