"""What every answer of SliceWise's own routes has, and the form of every error. Versioned by ``SCHEMA_VERSION``."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from slicewise import RESEARCH_USE

# Raised with every change that a program could notice: the first number when an old program would break.
SCHEMA_VERSION: Literal["1.0"] = "1.0"

Milliseconds = dict[str, float]


class Record(BaseModel):
    """A part of an answer."""

    model_config = ConfigDict(frozen=True)


class ErrorFields(Record):
    """What is wrong, and what to do about it."""

    code: str = Field(description="Stable word for programs, e.g. invalid_input, too_large, busy, unavailable.")
    message: str = Field(description="What is wrong, naming the field or file.")
    cure: str = Field(description="What to do about it.")


class ErrorAnswer(Record):
    """The body of every answer that is no success."""

    error: ErrorFields


class ModelFields(Record):
    """Which model answered."""

    name: str
    version: str = Field(description="The served version.")
    digest: str = Field(description="SHA-256 of the bundle's manifest, which holds the digests of all its files.")


class Answer(Record):
    """The frame of every successful answer."""

    schema_version: Literal["1.0"] = SCHEMA_VERSION
    request_id: str = Field(description="The caller's X-Request-ID, or a new one; also in the answer's header.")
    timings_ms: Milliseconds = Field(
        description="Milliseconds: read, backend, encode, total in the gateway; preprocess, network, postprocess in "
        "the model server, of the whole batch that the request was part of."
    )
    research_use: str = RESEARCH_USE


class Health(Record):
    """Whether the model answers."""

    status: Literal["ok", "unavailable"]
    model: str
    version: str = Field(description="The software's.")
    schema_version: Literal["1.0"] = SCHEMA_VERSION


class ModelInfo(BaseModel):
    """What the bundle says of the model; more may be told than is named here."""

    model_config = ConfigDict(extra="allow")

    name: str
    version: str
    digest: str
    modalities: list[str]
    unknown_modality: str = Field(description="The channel by which an image of unknown modality enters.")
    size: int = Field(description="Side of the network's square input in pixels.")
    regions: list[str]
    trained_regions: list[str]
    research_use: str
