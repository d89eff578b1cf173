"""The parameters of SliceWise's own routes: the one place that knows which route takes which, and their limits.

A parameter comes in the query string, as a form field or as a JSON field, in this order of rank.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema

from serving.codecs.masks import MapFormat, MaskFormat
from serving.codecs.parameters import number, spacing, words
from slicewise.errors import InputError
from slicewise.inference.explain import ExplainMethod
from slicewise.inference.predictor import MAX_MC_SAMPLES, PredictOptions

Chosen = TypeVar("Chosen", bound="SliceParameters")
StudyMaskFormat = Literal["none", "nifti", "npy", "npy_gz"]
MAX_MM = 100.0


def _no_flag(value: Any) -> Any:
    """JSON's true is a number to Python, but not to a caller."""
    if isinstance(value, bool):
        raise ValueError("a number is wanted")
    return value


def _names(value: Any) -> Any:
    return None if value is None else words(value, "modalities")


def _pixel(value: Any) -> Any:
    return None if value is None else spacing(value)


def _slice_step(value: Any) -> Any:
    if value is None:
        return None
    step = number(value, "slice_mm")
    if not 0.01 <= step <= MAX_MM:
        raise InputError(f"slice_mm: {value!r}", "send the distance between slices in mm, from 0.01 to 100")
    return step


NAMES = "^(flair|t1|t1ce|t2|unknown)(,(flair|t1|t1ce|t2|unknown))*$"
Names = Annotated[
    tuple[str, ...] | None, BeforeValidator(_names), WithJsonSchema({"type": "string", "pattern": NAMES})
]
Pixel = Annotated[
    tuple[float, float] | None,
    BeforeValidator(_pixel),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": 0.01, "maximum": MAX_MM},
                {"type": "string", "pattern": r"^\d{1,2}(\.\d+)?(,\d{1,2}(\.\d+)?)?$"},
            ]
        }
    ),
]
SliceStep = Annotated[
    float | None, BeforeValidator(_slice_step), WithJsonSchema({"type": "number", "minimum": 0.01, "maximum": MAX_MM})
]
# The limits stand first, or the schema would lose them.
Probability = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False), BeforeValidator(_no_flag)]
Samples = Annotated[int, Field(ge=1, le=MAX_MC_SAMPLES), BeforeValidator(_no_flag)]


class SliceParameters(BaseModel):
    """What every route takes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    threshold: Probability | None = Field(
        None, description="Decision threshold on the calibrated probability, 0 to 1; the bundle's own by default."
    )
    modalities: Names = Field(
        None, description="Names of the image's channels, joined by commas: flair, t1, t1ce, t2 or unknown."
    )
    pixel_mm: Pixel = Field(
        None, description="Side of a pixel in mm, or 'height,width', 0.01 to 100; areas in mm² need it."
    )
    version: str | None = Field(
        None, max_length=64, description="The model version to ask; the default one if absent."
    )

    def for_model(self, tasks: str) -> dict[str, Any]:
        """The V2 parameters that the model server gets."""
        given = {"tasks": tasks, "threshold": self.threshold, "pixel_mm": self.pixel_mm}
        given |= {"modalities": None if self.modalities is None else ",".join(self.modalities)}
        if self.pixel_mm is not None:
            given["pixel_mm"] = ",".join(map(str, self.pixel_mm))
        return {name: value for name, value in given.items() if value is not None}


class GradcamParameters(SliceParameters):
    """``/classify/gradcam``."""

    explain_method: ExplainMethod = Field("gradcam", description="How the heat map is made.")

    def for_model(self, tasks: str) -> dict[str, Any]:
        """With the method."""
        return super().for_model(tasks) | {"explain_method": self.explain_method}


class SegmentParameters(SliceParameters):
    """``/segment`` and ``/segment/batch``."""

    mask_format: MaskFormat = Field(
        "png", description="png (base64, 0 and 255), npy (base64, uint8 0 and 1) or rle (COCO, column by column)."
    )
    map_format: MapFormat = Field("png", description="Form of the maps: png (8 bits) or npy (float32), in base64.")
    probability_map: bool = Field(False, description="Whether to send the calibrated probability of each region.")
    overlay: bool = Field(False, description="Whether to send a picture of the slice with the masks' outlines.")


class UncertaintyParameters(SegmentParameters):
    """``/segment/uncertainty``."""

    n_mc_samples: Samples = Field(
        PredictOptions.n_mc_samples,
        validation_alias=AliasChoices("n_mc_samples", "mc_iterations"),
        description="Monte-Carlo dropout samples, 1 to 50; mc_iterations is another name for it.",
    )
    use_tta: bool = Field(False, description="Whether to share the samples between the slice and its mirror image.")

    def for_model(self, tasks: str) -> dict[str, Any]:
        """With the sampling."""
        return super().for_model(tasks) | {"n_mc_samples": self.n_mc_samples, "use_tta": self.use_tta}


class MultitaskParameters(SegmentParameters):
    """``/predict_multitask``."""

    overlay: bool = Field(True, description="Whether to send a picture of the slice with the masks' outlines.")
    conditional: bool = Field(True, description="Segment only if the tumour probability reaches the threshold.")

    def for_model(self, tasks: str) -> dict[str, Any]:
        """With the condition."""
        return super().for_model(tasks) | {"conditional": self.conditional}


class StudyParameters(SliceParameters):
    """``/patient/analyze_stack`` and ``/predict/async``."""

    modalities: Names = Field(
        None, description="Modalities of the files in their order, joined by commas; else field or file names tell."
    )
    slice_mm: SliceStep = Field(
        None, description="Distance between slices in mm, for a stack of pictures, 0.01 to 100; volumes need it."
    )
    conditional: bool = Field(False, description="Segment only slices whose probability reaches the threshold.")
    mask_format: StudyMaskFormat = Field(
        "none",
        description="How to send the mask: not at all, nifti (base64 of .nii.gz, BraTS labels, the input's geometry) "
        "npy (base64, uint8 [3, slices, rows, columns] of WT, TC, ET in display orientation) or npy_gz (the same, "
        "gzipped: a hundredth of the size).",
    )


def read(kind: type[Chosen], given: Mapping[str, Any]) -> Chosen:
    """Validate a request's parameters.

    Raises:
        InputError: An unknown name or a value out of range; names the parameter and what is known.
    """
    known = names_of(kind)
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f", did you mean {near[0]!r}?" if near else ""
            raise InputError(f"parameter {str(name)[:80]!r} is unknown{hint}", f"use {', '.join(known)}")
    try:
        return kind.model_validate(dict(given))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0])
        told = repr(first["input"])[:80]
        raise InputError(f"{name}: {told}: {first['msg']}", _cure(kind, name)) from error


def names_of(kind: type[SliceParameters]) -> tuple[str, ...]:
    """All names that a route takes, other names included."""
    names: list[str] = []
    for name, field in kind.model_fields.items():
        alias = field.validation_alias
        names += map(str, alias.choices) if isinstance(alias, AliasChoices) else [name]
    return tuple(names)


def _cure(kind: type[SliceParameters], name: str) -> str:
    for field_name, field in kind.model_fields.items():
        alias = field.validation_alias
        if name == field_name or (isinstance(alias, AliasChoices) and name in alias.choices):
            return str(field.description)
    return "see the documentation of the route"
