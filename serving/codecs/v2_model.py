"""What the V2 tensors of the model mean: requests to slices, predictions to outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any

import numpy as np
import orjson

from serving.codecs.budget import Budget, check_count
from serving.codecs.files import decode_slices
from serving.codecs.images import to_slice
from serving.codecs.outputs import MAP_TASKS, ON_DEMAND, OOD, TASKS
from serving.codecs.parameters import Parameters
from serving.codecs.tensors import BYTES, Array, datatype_of
from serving.codecs.v2 import Message
from serving.status import error_body
from slicewise.config import REGIONS, SliceConfig
from slicewise.errors import InputError
from slicewise.inference.predictor import Prediction, SliceInput

INPUTS = (("image", "FP32", [-1, -1, -1, -1]), ("image_bytes", BYTES, [-1]))
OUTPUTS = (
    ("tumor_probability", "FP32", [-1]),
    ("tumor_label", "BOOL", [-1]),
    ("mask", "UINT8", [-1, len(REGIONS), -1, -1]),
    ("region_probability", "FP32", [-1, len(REGIONS), -1, -1]),
    ("gradcam", "FP32", [-1, -1, -1]),
    ("uncertainty", "FP32", [-1, -1, -1]),
    ("epistemic", "FP32", [-1, -1, -1]),
    ("aleatoric", "FP32", [-1, -1, -1]),
    ("uncertainty_scores", BYTES, [-1]),
    ("ood_score", "FP32", [-1]),
    ("ood_parts", BYTES, [-1]),
    ("error", BYTES, [-1]),
)
OUTPUT_NAMES = tuple(name for name, _, _ in OUTPUTS)
MAPS: dict[str, Callable[[Prediction], Array | None]] = {name: attrgetter(name) for name in MAP_TASKS}


def read_items(
    request: Message, parameters: Parameters, config: SliceConfig, budget: Budget | None = None
) -> list[SliceInput | InputError]:
    """The slices of a request; an undecodable file is its error in its place.

    A volume is answered slice by slice, so it has to be the request's only file.

    Raises:
        InputError: The request as a whole is wrong; names the field.
    """
    names = set(request.tensors)
    if names not in ({"image"}, {"image_bytes"}):
        raise InputError(f"inputs: {sorted(names)}", "send exactly one, 'image' or 'image_bytes'")
    unknown = [name for name in request.wanted if name not in OUTPUT_NAMES]
    if unknown:
        raise InputError(f"outputs: {unknown[0]!r} is unknown", f"use {', '.join(OUTPUT_NAMES)}")
    if "image" in names:
        return _from_arrays(request.tensors["image"], parameters, config)
    items = _from_files(request.tensors["image_bytes"], parameters, config, budget or Budget())
    frames = {item.image.shape[1:] for item in items if isinstance(item, SliceInput)}
    if len(frames) > 1 and any(task in parameters.options.tasks for task in MAP_TASKS.values()):
        sizes = ", ".join(f"{height}×{width}" for height, width in sorted(frames))
        raise InputError(
            f"image_bytes: files of different sizes ({sizes}) do not fit one mask tensor",
            "send one request per size, or tasks=classify",
        )
    return items


def build_answer(outcomes: Sequence[Prediction | InputError], request: Message, model: Mapping[str, str]) -> Message:
    """The V2 answer.

    Args:
        outcomes: One for each slice of the request; at least one is a prediction.
        request: For its id and the outputs asked for.
        model: ``name``, ``version`` and ``digest``.

    Raises:
        InputError: An output was asked for that was not computed.
    """
    good = next(outcome for outcome in outcomes if isinstance(outcome, Prediction))
    tensors = _outputs(outcomes, good, request.wanted)
    wanted = request.wanted or tuple(tensors)
    for name in wanted:
        if name not in tensors:
            raise _not_computed(name)
    picked = {name: tensors[name] for name in wanted}
    parameters = {"model_digest": model["digest"], **_answer_parameters(outcomes, good)}
    return Message(picked, parameters, request.id, model["name"], model["version"])


def _outputs(
    outcomes: Sequence[Prediction | InputError], good: Prediction, wanted: tuple[str, ...]
) -> dict[str, Array]:
    """All tensors that the outcomes can fill; ``good`` is the first prediction among them."""
    tensors: dict[str, Array] = {
        "tumor_probability": np.array([_probability(outcome) for outcome in outcomes], dtype=np.float32),
        "tumor_label": np.array([isinstance(item, Prediction) and item.tumor_label for item in outcomes]),
    }
    for name, pick in MAPS.items():
        like = pick(good)
        if like is not None and (name in wanted or name not in ON_DEMAND):
            tensors[name] = _stack(outcomes, pick, like)
    if good.ood_score is not None:
        tensors["ood_score"] = np.array([_ood_score(outcome) for outcome in outcomes], dtype=np.float32)
    for name, tell in TEXTS.items():
        if tell(good):
            tensors[name] = _texts([tell(item) if isinstance(item, Prediction) else b"" for item in outcomes])
    tensors["error"] = _texts(
        [orjson.dumps(error_body(item)) if isinstance(item, InputError) else b"" for item in outcomes]
    )
    return tensors


def _answer_parameters(outcomes: Sequence[Prediction | InputError], good: Prediction) -> dict[str, Any]:
    """What is told beside the tensors; lists are in the order of the slices, empty where one failed."""
    parameters: dict[str, Any] = {
        "threshold": good.threshold,
        "decision": ",".join(item.decision if isinstance(item, Prediction) else "" for item in outcomes),
    }
    if good.ood_flag is not None:
        parameters["ood_flag"] = ",".join(_flag(outcome, "ood_flag") for outcome in outcomes)
    if good.mask is not None:
        parameters["decoded"] = ",".join(_flag(outcome, "decoded") for outcome in outcomes)
        parameters["trained_regions"] = ",".join(good.trained_regions)
    return parameters | {f"{phase}_ms": round(value, 3) for phase, value in good.timings_ms.items()}


def _not_computed(name: str) -> InputError:
    if name in OOD:
        return InputError(f"outputs: this model has no {name!r}", "leave it out, or calibrate and package it again")
    return InputError(f"outputs: {name!r} was not computed", f"add {TASKS[name]!r} to tasks")


def _from_arrays(images: Array, parameters: Parameters, config: SliceConfig) -> list[SliceInput | InputError]:
    if images.ndim != 4 or 0 in images.shape or images.dtype.kind not in "biuf":
        kind = datatype_of(images)
        raise InputError(f"image has {kind} {list(images.shape)}", "send FP32 [items, channels, height, width]")
    check_count(len(images), "image")
    named = parameters.modalities or (config.modalities if images.shape[1] == len(config.modalities) else None)
    return [to_slice(image, named, config, parameters.pixel_mm or (1.0, 1.0)) for image in images]


def _from_files(
    files: Array, parameters: Parameters, config: SliceConfig, budget: Budget
) -> list[SliceInput | InputError]:
    if files.ndim != 1 or files.dtype != np.object_ or not len(files):
        raise InputError(
            f"image_bytes has {datatype_of(files)} {list(files.shape)}", "send BYTES [items], one or more"
        )
    check_count(len(files), "image_bytes")
    if len(files) == 1:
        return list(decode_slices(files[0], "image_bytes[0]", parameters, config, budget).slices)
    return [_file(data, f"image_bytes[{index}]", parameters, config, budget) for index, data in enumerate(files)]


def _file(
    data: bytes, field: str, parameters: Parameters, config: SliceConfig, budget: Budget
) -> SliceInput | InputError:
    try:
        decoded = decode_slices(data, field, parameters, config, budget)
    except InputError as error:
        return error
    if decoded.is_volume:
        return InputError(f"{field} is a volume of {len(decoded.slices)} slices", "send a volume alone, as one file")
    return decoded.slices[0]


def _probability(outcome: Prediction | InputError) -> float:
    return outcome.tumor_probability if isinstance(outcome, Prediction) else float("nan")


def _ood_score(outcome: Prediction | InputError) -> float:
    score = outcome.ood_score if isinstance(outcome, Prediction) else None
    return float("nan") if score is None else score


def _flag(outcome: Prediction | InputError, name: str) -> str:
    return str(getattr(outcome, name)).lower() if isinstance(outcome, Prediction) else ""


def _texts(items: Sequence[bytes]) -> Array:
    texts = np.empty(len(items), dtype=np.object_)
    texts[:] = items
    return texts


def _uncertainty_scores(prediction: Prediction) -> bytes:
    scores = prediction.uncertainty_scores
    return b"" if scores is None else orjson.dumps(scores)


def _ood_parts(prediction: Prediction) -> bytes:
    return orjson.dumps(dict(prediction.ood_parts)) if prediction.ood_parts else b""


def _stack(
    outcomes: Sequence[Prediction | InputError], pick: Callable[[Prediction], Array | None], like: Array
) -> Array:
    """The items' maps, zeros where an item failed."""
    empty = np.zeros_like(like)
    maps = [pick(outcome) if isinstance(outcome, Prediction) else empty for outcome in outcomes]
    return np.stack([empty if plane is None else plane for plane in maps])


# Figures of one slice as JSON, empty where there are none.
TEXTS: dict[str, Callable[[Prediction], bytes]] = {
    "uncertainty_scores": _uncertainty_scores,
    "ood_parts": _ood_parts,
}
