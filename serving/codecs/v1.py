"""KServe V1: ``{"instances": [...], "parameters": {...}}`` to ``{"predictions": [...]}``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from serving.answers import class_fields, map_fields, mask_fields, ood_fields
from serving.codecs.budget import Budget
from serving.codecs.files import Decoded, decode_slices, of_array
from serving.codecs.images import as_channels, decode_file
from serving.codecs.parameters import Parameters, words
from serving.codecs.tensors import Array, from_base64
from serving.status import error_body
from slicewise.config import SliceConfig
from slicewise.errors import InputError
from slicewise.inference.predictor import Prediction


@dataclass(frozen=True)
class Answered:
    """One instance and what became of its slices.

    Attributes:
        source: The instance as read, or why it could not be.
        outcomes: One for each of its slices.
    """

    source: Decoded | InputError
    outcomes: Sequence[Prediction | InputError]


INSTANCE_KEYS = frozenset({"image", "modalities"})


def instances(body: Mapping[str, Any]) -> list[Any]:
    """The request's instances.

    Raises:
        InputError: Not a non-empty list.
    """
    items = body.get("instances")
    if not isinstance(items, list) or not items:
        raise InputError("instances must be a non-empty list", 'send {"instances": [{"image": {"b64": "…"}}]}')
    return items


def decode_instance(
    instance: Any, index: int, parameters: Parameters, config: SliceConfig, budget: Budget
) -> Decoded | InputError:
    """One instance as slices, or what is wrong with it: the others are not to suffer."""
    try:
        return _decode(instance, f"instances[{index}]", parameters, config, budget)
    except InputError as error:
        return error


def image_array(value: Any, field: str, budget: Budget | None = None) -> Array:
    """``{"b64": "…"}``, a base64 string of a file, or nested lists of numbers.

    Raises:
        InputError: None of these; names ``field``.
    """
    if (file := _file_in(value, field)) is not None:
        return decode_file(file, field, budget)
    if not isinstance(value, list):
        raise InputError(f"{field} is missing or of no known form", 'send {"b64": "…"} or nested lists of numbers')
    try:
        array = np.array(value, dtype=np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"{field} is not an array of numbers", "send rows of equal length") from error
    return as_channels(array, field)


def encode(answers: Sequence[Answered]) -> bytes:
    """The answer, one prediction for each instance; see ``fields_of``."""
    return orjson.dumps({"predictions": [fields_of(answer) for answer in answers]})


def fields_of(answer: Answered) -> dict[str, Any]:
    """One instance's answer: ``{"error": …}`` if it failed, ``{"predictions": […]}`` for a volume's slices."""
    if isinstance(answer.source, InputError):
        return error_body(answer.source)
    items = [
        error_body(outcome) if isinstance(outcome, InputError) else prediction_fields(outcome, answer.source.pixel_mm)
        for outcome in answer.outcomes
    ]
    return {"predictions": items} if answer.source.is_volume else items[0]


def prediction_fields(prediction: Prediction, pixel_mm: tuple[float, float] | None) -> dict[str, Any]:
    """One prediction as JSON fields."""
    fields = class_fields(prediction.tumor_probability, prediction.threshold, prediction.decision)
    fields |= ood_fields(prediction.ood_score, prediction.ood_flag)
    if prediction.mask is not None:
        fields |= mask_fields(prediction.mask, pixel_mm, prediction.trained_regions)
    return fields | map_fields(prediction.gradcam, prediction.uncertainty)


def _decode(instance: Any, field: str, parameters: Parameters, config: SliceConfig, budget: Budget) -> Decoded:
    if not isinstance(instance, dict):
        raise InputError(f"{field} must be a JSON object", 'send {"image": …}')
    if unknown := sorted(set(instance) - INSTANCE_KEYS):
        raise InputError(f"{field}: {unknown[0]!r} is unknown", f"use {', '.join(sorted(INSTANCE_KEYS))}")
    named = instance.get("modalities")
    if named is not None:
        parameters = dataclasses.replace(parameters, modalities=words(named, f"{field}.modalities"))
    where, image = f"{field}.image", instance.get("image")
    if (file := _file_in(image, where)) is not None:
        return decode_slices(file, where, parameters, config, budget)
    return of_array(image_array(image, where), parameters, config)


def _file_in(value: Any, field: str) -> bytes | None:
    """The file in ``{"b64": "…"}`` or a base64 string."""
    if isinstance(value, dict) and set(value) == {"b64"}:
        return from_base64(value["b64"], f"{field}.b64")
    return from_base64(value, field) if isinstance(value, str) else None
