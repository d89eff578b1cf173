"""Open Inference Protocol V2, requests and answers, in JSON and in binary.

A message is JSON with a list of tensors (``inputs`` or ``outputs``). In binary the JSON comes first, its length
is in the header ``Inference-Header-Content-Length``, and the tensors' bytes follow it in order.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

from serving.codecs.tensors import BYTES, DATATYPES, Array, datatype_of, from_json, pack, to_json, unpack
from slicewise.errors import InputError

LENGTH_HEADER = "Inference-Header-Content-Length"
BINARY = "application/octet-stream"
MAX_RANK = 8
LENGTH = re.compile("[0-9]{1,12}")

Kind = Literal["inputs", "outputs"]


@dataclass(frozen=True)
class Message:
    """A V2 request or answer.

    Attributes:
        tensors: The inputs or outputs by name.
        parameters: The message's parameters and, below them, those of its tensors.
        id: The caller's id; empty when none.
        model_name: Answers only.
        model_version: Answers only.
        wanted: The outputs asked for; empty for all (requests only).
        binary: Whether the answer is wanted in binary (requests only).
    """

    tensors: Mapping[str, Array]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    id: str = ""
    model_name: str = ""
    model_version: str = ""
    wanted: tuple[str, ...] = ()
    binary: bool = False


def parse(body: bytes | Mapping[str, Any], header_length: str | int | None, kind: Kind) -> Message:
    """Read a message.

    Args:
        body: The body, or its JSON already parsed.
        header_length: Value of ``Inference-Header-Content-Length``; None for plain JSON.
        kind: Whether it is a request (``inputs``) or an answer (``outputs``).

    Raises:
        InputError: Anything malformed; names the field.
    """
    head, tail = _split(body, header_length)
    parameters = _mapping(head.get("parameters"), "parameters")
    entries = head.get(kind)
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{kind} must be a list of tensors", f'send {{"{kind}": [{{"name": …}}]}}')
    tensors: dict[str, Array] = {}
    merged: dict[str, Any] = {}
    for index, entry in enumerate(entries):
        name, array, own, tail = _tensor(entry, f"{kind}[{index}]", tail, texts=kind == "outputs")
        if name in tensors:
            raise InputError(f"{kind}[{index}].name: {name!r} comes twice", "name each tensor once")
        tensors[name] = array
        merged.update(own)
    if len(tail):
        raise InputError(f"{len(tail)} bytes follow the last tensor", "check binary_data_size of each tensor")
    wanted, binary = _wanted(head.get("outputs"), parameters) if kind == "inputs" else ((), False)
    names = (str(head.get(key) or "") for key in ("id", "model_name", "model_version"))
    request_id, model_name, model_version = names
    return Message(tensors, merged | parameters, request_id, model_name, model_version, wanted, binary)


def write(message: Message, kind: Kind, binary: bool) -> tuple[bytes, int | None]:
    """The message's body, and the value of ``Inference-Header-Content-Length`` (None for JSON)."""
    entries, blobs = [], []
    for name, array in message.tensors.items():
        entry: dict[str, Any] = {"name": name, "datatype": datatype_of(array), "shape": list(array.shape)}
        if binary:
            blobs.append(pack(array))
            entry["parameters"] = {"binary_data_size": len(blobs[-1])}
        else:
            entry["data"] = to_json(array)
        entries.append(entry)
    head: dict[str, Any] = {kind: entries}
    if message.parameters:
        head["parameters"] = dict(message.parameters)
    if binary and kind == "inputs":
        head["parameters"] = {**message.parameters, "binary_data_output": True}
    if message.wanted:
        head["outputs"] = [{"name": name} for name in message.wanted]
    for key in ("id", "model_name", "model_version"):
        if getattr(message, key):
            head[key] = getattr(message, key)
    text = orjson.dumps(head)
    return b"".join([text, *blobs]), len(text) if binary else None


def head_length(value: str | int, size: int) -> int:
    """The value of ``Inference-Header-Content-Length`` over a body of ``size`` bytes.

    Raises:
        InputError: No whole number in plain digits, or more than the body has.
    """
    length = int(value) if LENGTH.fullmatch(str(value)) else -1
    if not 0 < length <= size:
        told = str(value)[:20]
        raise InputError(
            f"{LENGTH_HEADER}: {told!r} does not fit a body of {size} bytes",
            "give the length of the JSON at the body's start",
        )
    return length


def parse_json(body: bytes) -> Any:
    """Parse JSON.

    Raises:
        InputError: It is not JSON.
    """
    try:
        return orjson.loads(body)
    except json.JSONDecodeError as error:
        raise InputError(f"the body is not JSON: {error}", "check the JSON and its Content-Type") from error


def _split(body: bytes | Mapping[str, Any], header_length: str | int | None) -> tuple[Mapping[str, Any], memoryview]:
    tail = memoryview(b"")
    if isinstance(body, Mapping):
        return body, tail
    if header_length is not None:
        length = head_length(header_length, len(body))
        body, tail = body[:length], memoryview(body)[length:]
    head = parse_json(body)
    if not isinstance(head, dict):
        raise InputError("the body must be a JSON object", "send a V2 inference request")
    return head, tail


def _tensor(entry: Any, name: str, tail: memoryview, texts: bool) -> tuple[str, Array, dict[str, Any], memoryview]:
    """One tensor, its parameters, and what is left of the binary tail."""
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise InputError(f"{name}.name is missing", "each tensor has name, datatype, shape and data")
    datatype = entry.get("datatype")
    if not isinstance(datatype, str) or (datatype not in DATATYPES and datatype != BYTES):
        raise InputError(f"{name}.datatype: {datatype!r} is unknown", f"use {', '.join((*DATATYPES, BYTES))}")
    shape = _shape(entry.get("shape"), f"{name}.shape")
    own = _mapping(entry.get("parameters"), f"{name}.parameters")
    size = own.pop("binary_data_size", None)
    if size is None:
        return entry["name"], from_json(entry.get("data"), datatype, shape, f"{name}.data", texts), own, tail
    if type(size) is not int or not 0 <= size <= len(tail):
        raise InputError(
            f"{name}.parameters.binary_data_size: {size!r}, but {len(tail)} bytes are left",
            f"send the whole tensor, and {LENGTH_HEADER}",
        )
    return entry["name"], unpack(tail[:size], datatype, shape, name), own, tail[size:]


def _shape(value: Any, name: str) -> tuple[int, ...]:
    good = isinstance(value, list) and len(value) <= MAX_RANK
    if not good or any(type(item) is not int or not 0 <= item < 2**31 for item in value):
        raise InputError(f"{name}: {value!r} is not a shape", f"send at most {MAX_RANK} whole numbers from 0 up")
    return tuple(value)


def _mapping(value: Any, name: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InputError(f"{name} must be a JSON object", 'send {"key": value}')
    return dict(value)


def _wanted(value: Any, parameters: dict[str, Any]) -> tuple[tuple[str, ...], bool]:
    """The outputs asked for, and whether in binary: by the request's parameter or by any of the outputs'."""
    binary = bool(parameters.pop("binary_data_output", False))
    if value is None:
        return (), binary
    if not isinstance(value, list) or any(
        not isinstance(item, dict) or not isinstance(item.get("name"), str) for item in value
    ):
        raise InputError("outputs must be a list of objects with a name", "leave it out to get all outputs")
    asked = [_mapping(item.get("parameters"), "outputs.parameters").get("binary_data") for item in value]
    binary = any(asked) or (binary and None in asked)
    return tuple(item["name"] for item in value), binary
