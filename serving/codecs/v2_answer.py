"""The model's V2 answer read back into predictions: the mirror image of ``v2_model.build_answer``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import orjson
from pydantic import TypeAdapter

from serving.codecs.outputs import MAP_TASKS
from serving.codecs.tensors import Array
from serving.codecs.v2 import Message
from serving.status import error_from
from slicewise.errors import InputError
from slicewise.inference.calibration import Decision
from slicewise.inference.predictor import Prediction
from slicewise.inference.slice_uncertainty import UncertaintyScores

_SCORES = TypeAdapter(UncertaintyScores)


def read_predictions(answer: Message) -> list[Prediction | InputError]:
    """One outcome for each slice of the request, in its order."""
    errors = answer.tensors.get("error")
    n_items = len(answer.tensors["tumor_probability"])
    failed = errors if errors is not None else [b""] * n_items
    return [_failure(text) if text else _prediction(answer, index) for index, text in enumerate(failed)]


def _failure(text: bytes) -> InputError:
    error = error_from(orjson.loads(text).get("error"))
    return error if isinstance(error, InputError) else InputError(error.message, error.cure)


def _prediction(answer: Message, index: int) -> Prediction:
    tensors, parameters = answer.tensors, answer.parameters
    probability, threshold = float(tensors["tumor_probability"][index]), float(parameters["threshold"])
    score = tensors.get("ood_score")
    flag = _listed(parameters, "ood_flag", index)
    return Prediction(
        tumor_probability=probability,
        tumor_label=bool(tensors["tumor_label"][index]),
        threshold=threshold,
        decoded=_listed(parameters, "decoded", index) == "true",
        decision=cast("Decision", _listed(parameters, "decision", index) or "unsure"),
        ood_score=None if score is None or not np.isfinite(score[index]) else float(score[index]),
        ood_flag=None if not flag else flag == "true",
        ood_parts=_json(tensors.get("ood_parts"), index) or {},
        uncertainty_scores=_scores(tensors.get("uncertainty_scores"), index),
        trained_regions=trained_regions(parameters),
        timings_ms=timings(parameters),
        **{name: np.asarray(tensors[name][index]) for name in MAP_TASKS if name in tensors},
    )


def trained_regions(parameters: Mapping[str, Any]) -> tuple[str, ...]:
    """The regions that the model was taught."""
    return tuple(name for name in str(parameters.get("trained_regions", "")).split(",") if name)


def timings(parameters: Mapping[str, Any]) -> dict[str, float]:
    """Milliseconds of each phase inside the model server."""
    return {name.removesuffix("_ms"): float(value) for name, value in parameters.items() if name.endswith("_ms")}


def _listed(parameters: Mapping[str, Any], name: str, index: int) -> str:
    words = str(parameters.get(name, "")).split(",")
    return words[index] if index < len(words) else ""


def _json(texts: Array | None, index: int) -> Any:
    text = None if texts is None else texts[index]
    return orjson.loads(text) if text else None


def _scores(texts: Array | None, index: int) -> UncertaintyScores | None:
    fields = _json(texts, index)
    return None if fields is None else _SCORES.validate_python(fields)
