"""What the OpenAPI document says of request bodies, parameters and errors, made of the parameters' own models."""

from __future__ import annotations

from typing import Any

from serving.gateway.rest.parameters import SliceParameters
from serving.gateway.rest.schemas import ErrorAnswer

JSON = dict[str, Any]
WORDS: dict[int, str] = {
    400: "The request is wrong: the message names the field, the cure says what to send.",
    404: "No such address, job or model version.",
    405: "Another method is wanted.",
    408: "The body came too slowly.",
    409: "The job is not at the point where it has this.",
    413: "Larger than a stated limit.",
    415: "A content type or a file of a kind that is not read.",
    422: "It cannot be made for this input.",
    429: "Too many requests at once: try again after Retry-After seconds.",
    500: "A fault of the server; its log has the reason.",
    503: "The model server is away: try again after Retry-After seconds.",
    504: "The model server took longer than the deadline.",
}
ROWS: JSON = {"type": "array", "items": {}, "minItems": 1}
IMAGE: JSON = {
    "description": "Numbers [height][width] or [channels][height][width], or base64 of a PNG, JPEG or npy file.",
    "anyOf": [
        ROWS,
        {"type": "string", "minLength": 1, "contentEncoding": "base64"},
        {
            "type": "object",
            "properties": {"b64": {"type": "string", "minLength": 1, "contentEncoding": "base64"}},
            "required": ["b64"],
            "additionalProperties": False,
        },
    ],
}
FILE: JSON = {"type": "string", "format": "binary"}
IMAGE_TYPES = ("image/png", "image/jpeg", "application/x-npy", "application/octet-stream")
STUDY_TYPES = ("application/zip", "application/gzip", "application/x-nifti", "application/octet-stream")


def errors(*statuses: int) -> dict[int | str, JSON]:
    """The declared failures of a route."""
    told: dict[int | str, JSON] = {}
    for status in statuses:
        told[status] = {"model": ErrorAnswer, "description": WORDS[status]}
        if status in (429, 503):
            told[status]["headers"] = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}
    return told


def image_body(kind: type[SliceParameters]) -> JSON:
    """One image: a form with ``file``, JSON with ``image``, or the bare file."""
    return _operation(kind, {"file": FILE}, ["file"], {"image": IMAGE}, ["image"], IMAGE_TYPES)


def images_body(kind: type[SliceParameters], most: int) -> JSON:
    """Many images: a form with files, or JSON with ``images``."""
    named: JSON = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "image": IMAGE},
        "required": ["name", "image"],
        "additionalProperties": False,
    }
    entry = {"anyOf": [*IMAGE["anyOf"], named]}
    images = {"type": "array", "minItems": 1, "maxItems": most, "items": entry}
    return _operation(kind, {"files": _files(most)}, ["files"], {"images": images}, ["images"], IMAGE_TYPES)


def study_body(kind: type[SliceParameters], most: int) -> JSON:
    """A study: a form with files, JSON with ``files`` or ``images``, or one bare file."""
    named: JSON = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "data": {"type": "string", "contentEncoding": "base64"}},
        "required": ["name", "data"],
        "additionalProperties": False,
    }
    form: JSON = {"files": _files(most)}
    form |= {name: {**FILE, "description": f"NIfTI of {name}."} for name in ("flair", "t1", "t1ce", "t2")}
    body: JSON = {
        "files": {"type": "array", "minItems": 1, "maxItems": most, "items": named},
        "images": {"type": "array", "minItems": 1, "maxItems": most, "items": IMAGE},
    }
    told = _operation(kind, form, [], body, [], STUDY_TYPES)
    told["requestBody"]["content"]["application/json"]["schema"]["oneOf"] = [
        {"required": ["files"]},
        {"required": ["images"]},
    ]
    return told


def _files(most: int) -> JSON:
    return {"type": "array", "items": FILE, "minItems": 1, "maxItems": most}


def _operation(
    kind: type[SliceParameters],
    form: JSON,
    form_needs: list[str],
    body: JSON,
    needs: list[str],
    types: tuple[str, ...],
) -> JSON:
    fields = _fields(kind)
    content: JSON = {
        "multipart/form-data": {"schema": _object(form | fields, form_needs)},
        "application/json": {"schema": _object(body | fields, needs)},
    }
    content |= {name: {"schema": FILE} for name in types}
    return {"parameters": _query(kind, fields), "requestBody": {"required": True, "content": content}}


def _object(properties: JSON, required: list[str]) -> JSON:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _fields(kind: type[SliceParameters]) -> JSON:
    """The parameters' own schemas, by every name that they go by."""
    told: JSON = {}
    # By field name: the schema of an alias is that of its field.
    properties = kind.model_json_schema(by_alias=False)["properties"]
    for name, field in kind.model_fields.items():
        schema = {key: value for key, value in properties[name].items() if key != "title"}
        schema = _without_null(schema)
        choices = getattr(field.validation_alias, "choices", [name])
        told |= {str(choice): schema for choice in choices}
    return told


def _without_null(schema: JSON) -> JSON:
    """Leaving a parameter out is how to send none: null is for the code, not for callers."""
    kinds = [one for one in schema.get("anyOf", []) if one.get("type") != "null"]
    if schema.get("default", "") is None:
        schema.pop("default")
    if len(kinds) != 1:
        return schema
    schema.pop("anyOf")
    return {**kinds[0], **schema}


def _query(kind: type[SliceParameters], fields: JSON) -> list[JSON]:
    return [
        {
            "name": name,
            "in": "query",
            "required": False,
            "description": schema.get("description", ""),
            "schema": {key: value for key, value in schema.items() if key != "description"},
        }
        for name, schema in fields.items()
    ]
