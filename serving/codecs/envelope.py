"""Headers and status where a protocol carries bodies alone, as TorchServe's gRPC does.

A request has its headers as JSON beside the body. An answer is four bytes of length, a JSON head of that
length, and the body.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

HEADERS = "slicewise-headers"
PROBE_HEADER = "x-slicewise-probe"
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True)
class Opened:
    """An answer out of its envelope.

    Attributes:
        status: HTTP status.
        headers: ``content-type`` among them.
        body: The answer itself.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


def seal_headers(headers: Mapping[str, str]) -> bytes:
    """A request's headers as bytes."""
    return orjson.dumps({name.lower(): value for name, value in headers.items()})


def read_headers(data: Any) -> dict[str, str]:
    """The headers that ``seal_headers`` wrote; none where it was not that."""
    try:
        given = orjson.loads(bytes(data))
    except (orjson.JSONDecodeError, TypeError, ValueError):
        return {}
    return {str(name): str(value) for name, value in given.items()} if isinstance(given, dict) else {}


def seal(status: int, headers: Mapping[str, str], body: bytes) -> bytes:
    """An answer with its status and headers."""
    head = orjson.dumps({"status": status, "headers": dict(headers)})
    return b"".join([_LENGTH.pack(len(head)), head, body])


def unseal(data: bytes) -> Opened:
    """What ``seal`` sealed.

    Raises:
        ValueError: It is not such an envelope.
    """
    if len(data) < _LENGTH.size or (end := _LENGTH.size + _LENGTH.unpack_from(data)[0]) > len(data):
        raise ValueError("the answer has no envelope")
    head = orjson.loads(data[_LENGTH.size : end])
    return Opened(int(head["status"]), dict(head["headers"]), data[end:])
