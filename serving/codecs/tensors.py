"""V2 datatypes and numpy arrays, in JSON and in binary."""

from __future__ import annotations

import base64
import binascii
import math
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicewise.errors import InputError

DATATYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
BYTES = "BYTES"
_LENGTH = struct.Struct("<I")

Array = NDArray[Any]


def datatype_of(array: Array) -> str:
    """The V2 name of an array's dtype; object arrays hold ``bytes``.

    Raises:
        ValueError: V2 has no such type.
    """
    if array.dtype == np.object_:
        return BYTES
    for name, dtype in DATATYPES.items():
        if array.dtype.newbyteorder("<") == dtype:
            return name
    raise ValueError(f"V2 has no datatype for {array.dtype}")


def pack(array: Array) -> bytes:
    """An array as V2 binary: little-endian C order; each ``bytes`` behind its length in four bytes."""
    if array.dtype == np.object_:
        return b"".join(_LENGTH.pack(len(item)) + item for item in array.ravel())
    return np.ascontiguousarray(array, dtype=DATATYPES[datatype_of(array)]).tobytes()


def unpack(data: bytes | memoryview, datatype: str, shape: tuple[int, ...], field: str) -> Array:
    """The array that ``pack`` packed.

    Raises:
        InputError: The bytes do not fill the shape; names ``field``.
    """
    if datatype == BYTES:
        return object_array(_split(data, field), shape, field)
    dtype = DATATYPES[datatype]
    expected = math.prod(shape) * dtype.itemsize
    if len(data) != expected:
        raise InputError(
            f"{field}: {len(data)} bytes, but {datatype} {list(shape)} takes {expected}",
            "send the whole tensor, little-endian and in row order",
        )
    return np.frombuffer(data, dtype=dtype).reshape(shape)


def object_array(items: list[bytes], shape: tuple[int, ...], field: str) -> Array:
    """Byte strings as an object array.

    Raises:
        InputError: Not as many as the shape says; names ``field``.
    """
    if len(items) != math.prod(shape):
        raise InputError(f"{field}: {len(items)} elements, but shape is {list(shape)}", "make them agree")
    array = np.empty(len(items), dtype=np.object_)
    array[:] = items
    return array.reshape(shape)


def from_json(data: Any, datatype: str, shape: tuple[int, ...], field: str, texts: bool = False) -> Array:
    """A tensor's ``data``, flat or nested.

    Args:
        data: The parsed JSON.
        datatype: A V2 datatype.
        shape: The tensor's shape.
        field: What to call it in errors.
        texts: Whether elements of ``BYTES`` are texts, as in answers; in requests they are files in base64.

    Raises:
        InputError: Not numbers, ragged, or not as many as the shape says; names ``field``.
    """
    if not isinstance(data, list):
        raise InputError(f"{field} must be a list", "send the tensor's elements in row order")
    if datatype == BYTES:
        read = _from_text if texts else from_base64
        return object_array([read(item, f"{field}[{at}]") for at, item in enumerate(data)], shape, field)
    try:
        array = np.array(data, dtype=DATATYPES[datatype])
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(
            f"{field} is not a {datatype} tensor: {error}", "send numbers in equally long rows"
        ) from error
    if array.size != math.prod(shape):
        raise InputError(f"{field}: {array.size} elements, but shape is {list(shape)}", "make them agree")
    return array.reshape(shape)


def to_json(array: Array) -> list[Any]:
    """A tensor's flat ``data``; NaN and infinities, which JSON lacks, become null; ``bytes`` must be UTF-8."""
    if array.dtype == np.object_:
        return [item.decode("utf-8") for item in array.ravel()]
    if array.dtype.kind == "f":
        return [value if math.isfinite(value) else None for value in array.ravel().tolist()]
    flat: list[Any] = array.ravel().tolist()
    return flat


def from_base64(value: Any, field: str) -> bytes:
    """Decode base64, with or without a ``data:`` prefix.

    Raises:
        InputError: Not base64; names ``field``.
    """
    if not isinstance(value, str):
        raise InputError(f"{field} must be a base64 string", "encode the file's bytes as base64")
    text = value.partition(",")[2] if value.startswith("data:") else value
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError(f"{field} is not base64: {error}", "encode the file's bytes as base64") from error


def _from_text(value: Any, field: str) -> bytes:
    if not isinstance(value, str):
        raise InputError(f"{field} must be a string", "send texts")
    return value.encode()


def _split(data: bytes | memoryview, field: str) -> list[bytes]:
    items, at = [], 0
    while at < len(data):
        start = at + _LENGTH.size
        if start > len(data) or start + (length := _LENGTH.unpack_from(data, at)[0]) > len(data):
            raise InputError(f"{field}: cut off at byte {at}", "put each element behind its length in four bytes")
        items.append(bytes(data[start : start + length]))
        at = start + length
    return items
