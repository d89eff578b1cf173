"""One image of a request to SliceWise's own routes, however it was sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from fastapi import Request
from starlette.datastructures import UploadFile

from serving.codecs.tensors import from_base64
from serving.codecs.v1 import image_array
from serving.codecs.v2 import parse_json
from serving.status import UnsupportedMediaError
from slicewise.errors import InputError

RAW_TYPES = frozenset(
    {"", "image/png", "image/jpeg", "application/octet-stream", "application/x-npy", "application/npy"}
)
CURE = "send a PNG, JPEG or npy file as the multipart field 'file' or as the body, or JSON with 'image'"
FIELDS = frozenset({"threshold", "modalities", "pixel_mm"})


@dataclass(frozen=True)
class Upload:
    """What was sent.

    Attributes:
        tensors: V2 inputs: ``image_bytes`` or ``image``.
        parameters: ``threshold``, ``modalities`` and ``pixel_mm``, as far as given; the query string wins.
    """

    tensors: Mapping[str, Any]
    parameters: dict[str, Any]


async def read_upload(request: Request) -> Upload:
    """Read the image and its parameters.

    Raises:
        UnsupportedMediaError: An unknown content type.
        InputError: No image in it, or an unknown parameter.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        tensors, given = await _read_form(request)
    elif kind == "application/json":
        tensors, given = _read_json(await request.body())
    elif kind in RAW_TYPES:
        tensors, given = _file(await request.body(), "body"), {}
    else:
        raise UnsupportedMediaError(f"Content-Type {kind!r} is not read here", CURE)
    parameters = given | dict(request.query_params)
    for name in parameters:
        if name not in FIELDS:
            raise InputError(f"parameter {name!r} is unknown", f"use {', '.join(sorted(FIELDS))}")
    return Upload(tensors, parameters)


async def _read_form(request: Request) -> tuple[Mapping[str, Any], dict[str, Any]]:
    async with request.form() as form:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise InputError("the form has no file in the field 'file'", CURE)
        data = await file.read()
        texts = {name: value for name, value in form.items() if isinstance(value, str)}
    return _file(data, "file"), texts


def _read_json(body: bytes) -> tuple[Mapping[str, Any], dict[str, Any]]:
    value = parse_json(body)
    if not isinstance(value, dict) or "image" not in value:
        raise InputError("image is missing", CURE)
    given = {name: item for name, item in value.items() if name != "image"}
    image = value["image"]
    if isinstance(image, dict) and set(image) == {"b64"}:
        image = image["b64"]
    if isinstance(image, str):
        return _file(from_base64(image, "image"), "image"), given
    return {"image": image_array(image, "image")[np.newaxis].astype(np.float32)}, given


def _file(data: bytes, name: str) -> Mapping[str, Any]:
    if not data:
        raise InputError(f"{name} is empty", CURE)
    files = np.empty(1, dtype=np.object_)
    files[0] = data
    return {"image_bytes": files}
