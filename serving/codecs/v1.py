"""KServe V1: ``{"instances": [...], "parameters": {...}}`` to ``{"predictions": [...]}``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from serving.answers import class_fields, map_fields, mask_fields, ood_fields
from serving.codecs.images import as_channels, decode_file, to_slice
from serving.codecs.parameters import Parameters, words
from serving.codecs.tensors import Array, from_base64
from serving.status import error_body
from slicewise.config import SliceConfig
from slicewise.errors import InputError
from slicewise.inference.predictor import Prediction, SliceInput

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
    instance: Any, index: int, parameters: Parameters, config: SliceConfig
) -> SliceInput | InputError:
    """One instance as a slice, or what is wrong with it: the others are not to suffer."""
    try:
        return _decode(instance, f"instances[{index}]", parameters, config)
    except InputError as error:
        return error


def image_array(value: Any, field: str) -> Array:
    """``{"b64": "…"}``, a base64 string of a file, or nested lists of numbers.

    Raises:
        InputError: None of these; names ``field``.
    """
    if isinstance(value, dict) and set(value) == {"b64"}:
        return decode_file(from_base64(value["b64"], f"{field}.b64"), field)
    if isinstance(value, str):
        return decode_file(from_base64(value, field), field)
    if not isinstance(value, list):
        raise InputError(f"{field} is missing or of no known form", 'send {"b64": "…"} or nested lists of numbers')
    try:
        array = np.array(value, dtype=np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"{field} is not an array of numbers", "send rows of equal length") from error
    return as_channels(array, field)


def encode(outcomes: Sequence[Prediction | InputError], pixel_mm: tuple[float, float] | None) -> bytes:
    """The answer; a failed item is ``{"error": …}`` in its place."""
    items = [
        error_body(outcome) if isinstance(outcome, InputError) else prediction_fields(outcome, pixel_mm)
        for outcome in outcomes
    ]
    return orjson.dumps({"predictions": items})


def prediction_fields(prediction: Prediction, pixel_mm: tuple[float, float] | None) -> dict[str, Any]:
    """One prediction as JSON fields."""
    fields = class_fields(prediction.tumor_probability, prediction.threshold, prediction.decision)
    fields |= ood_fields(prediction.ood_score, prediction.ood_flag)
    if prediction.mask is not None:
        fields |= mask_fields(prediction.mask, pixel_mm, prediction.trained_regions)
    return fields | map_fields(prediction.gradcam, prediction.uncertainty)


def _decode(instance: Any, field: str, parameters: Parameters, config: SliceConfig) -> SliceInput:
    if not isinstance(instance, dict):
        raise InputError(f"{field} must be a JSON object", 'send {"image": …}')
    if unknown := sorted(set(instance) - INSTANCE_KEYS):
        raise InputError(f"{field}: {unknown[0]!r} is unknown", f"use {', '.join(sorted(INSTANCE_KEYS))}")
    named = instance.get("modalities")
    modalities = parameters.modalities if named is None else words(named, f"{field}.modalities")
    array = image_array(instance.get("image"), f"{field}.image")
    return to_slice(array, modalities, config, parameters.pixel_mm or (1.0, 1.0))
