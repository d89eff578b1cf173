"""What a request to SliceWise's own routes holds, however it was sent: images or files, and parameters."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from fastapi import Request
from starlette.datastructures import UploadFile

from serving.codecs.images import as_channels
from serving.codecs.tensors import Array, from_base64
from serving.codecs.v2 import parse_json
from serving.status import UnsupportedMediaError
from slicewise.errors import InputError

RAW_TYPES = frozenset(
    {"", "image/png", "image/jpeg", "application/octet-stream", "application/x-npy", "application/npy"}
    | {"application/dicom", "application/gzip", "application/x-gzip", "application/zip", "application/x-nifti"}
)
FORM, JSON = "multipart/form-data", "application/json"
IMAGE_CURE = "send a PNG, JPEG or npy file as the multipart field 'file' or as the body, or JSON with 'image'"
MANY_CURE = "send files as multipart fields, or JSON with a list 'images'"
MAX_FORM_FILES = 4096
MAX_NAME = 120


@dataclass(frozen=True)
class Item:
    """One image or file of a request.

    Attributes:
        place: Where it stands in the request, for errors: a form field, ``image`` or ``images[3]``.
        name: The file's own name; empty where it has none.
        content: The file, or intensities ``[C, H, W]``, or what is wrong with it.
    """

    place: str
    name: str
    content: bytes | Array | InputError = field(repr=False)

    @property
    def label(self) -> str:
        """What to call it to the caller."""
        return self.name or self.place

    def tensors(self) -> dict[str, Any]:
        """It as the V2 input of one slice.

        Raises:
            InputError: It could not be read.
        """
        if isinstance(self.content, InputError):
            raise self.content
        if isinstance(self.content, bytes):
            files = np.empty(1, dtype=np.object_)
            files[0] = self.content
            return {"image_bytes": files}
        return {"image": self.content[np.newaxis].astype(np.float32)}


@dataclass(frozen=True)
class Upload:
    """A request's items, and its parameters by name; the query string wins over the body."""

    items: tuple[Item, ...]
    parameters: Mapping[str, Any]


async def read_upload(request: Request, many: bool = False) -> Upload:
    """Read the items and the parameters; the decoding is done beside the event loop.

    Args:
        request: Multipart, JSON or a bare file.
        many: Whether several items are welcome.

    Raises:
        UnsupportedMediaError: An unknown content type.
        InputError: No item, or too many; an item that is bad by itself holds its error.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == FORM:
        upload = await _read_form(request, many)
    elif kind == JSON:
        upload = await asyncio.to_thread(_read_json, await request.body(), many)
    elif kind in RAW_TYPES:
        upload = Upload((_file("body", "", await request.body()),), {})
    else:
        raise UnsupportedMediaError(f"Content-Type {kind[:80]!r} is not read here", MANY_CURE if many else IMAGE_CURE)
    return Upload(upload.items, {**upload.parameters, **request.query_params})


def only(items: Sequence[Item]) -> Item:
    """The item of a request for one image.

    Raises:
        InputError: There are more, or it cannot be read.
    """
    if len(items) != 1:
        raise InputError(f"{len(items)} images were sent", "send one, or use the batch route")
    if isinstance(items[0].content, InputError):
        raise items[0].content
    return items[0]


def require_count(items: Sequence[Item], most: int) -> None:
    """Refuse more items than a route takes.

    Raises:
        InputError: Too many.
    """
    if len(items) > most:
        raise InputError(f"{len(items)} images were sent", f"send at most {most} in one request")


async def _read_form(request: Request, many: bool) -> Upload:
    async with request.form(max_files=MAX_FORM_FILES) as form:
        parts = list(form.multi_items())
        texts = {name: value for name, value in parts if isinstance(value, str)}
        files = [(name, value) for name, value in parts if isinstance(value, UploadFile)]
        wanted = files if many else [part for part in files if part[0] == "file"]
        if not wanted:
            where = "no file" if many else "no file in the field 'file'"
            raise InputError(f"the form has {where}", MANY_CURE if many else IMAGE_CURE)
        items = [_file(name, value.filename or "", await value.read()) for name, value in wanted]
    return Upload(tuple(items), texts)


def _read_json(body: bytes, many: bool) -> Upload:
    value = parse_json(body)
    if not isinstance(value, dict):
        raise InputError("the body must be a JSON object", MANY_CURE if many else IMAGE_CURE)
    keys = ("images", "files", "image") if many else ("image",)
    key = next((key for key in keys if key in value), None)
    if key is None:
        raise InputError(f"{keys[0]} is missing", MANY_CURE if many else IMAGE_CURE)
    given = {name: item for name, item in value.items() if name != key}
    if key == "image":
        return Upload((_json_item(value[key], "image"),), given)
    if not isinstance(value[key], list) or not value[key]:
        raise InputError(f"{key} must be a non-empty list", MANY_CURE)
    return Upload(tuple(_json_item(item, f"{key}[{index}]") for index, item in enumerate(value[key])), given)


def _json_item(value: Any, where: str) -> Item:
    """An image as rows of numbers, base64, ``{"b64": …}``, or with its name beside ``image`` or ``data``."""
    name = ""
    if isinstance(value, dict) and set(value) in ({"name", "image"}, {"name", "data"}):
        name, value = str(value["name"]), value.get("image", value.get("data"))
    if isinstance(value, dict) and set(value) == {"b64"}:
        value = value["b64"]
    try:
        if isinstance(value, str):
            return _file(where, name, from_base64(value, where))
        return Item(where, _plain(name), _rows(value, where))
    except InputError as error:
        return Item(where, _plain(name), error)


def _rows(value: Any, where: str) -> Array:
    if not isinstance(value, list):
        raise InputError(f"{where} is missing or of no known form", "send base64, or rows of numbers")
    try:
        array = np.array(value, dtype=np.float32)
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"{where} is not an array of numbers", "send rows of equal length") from error
    return as_channels(array, where)


def _file(where: str, name: str, data: bytes) -> Item:
    plain = _plain(name)
    return Item(where, plain, data or InputError(f"{plain or where} is empty", "send the whole file"))


def _plain(name: str) -> str:
    """A file's own name without folders and without what could spoil a log or a header."""
    last = name.replace("\\", "/").rpartition("/")[2]
    return "".join(letter if letter.isprintable() else "_" for letter in last)[:MAX_NAME]
