"""The parameters of a request, however they came: V1, V2, query string, header or JSON field."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from slicewise.errors import InputError
from slicewise.inference.explain import ExplainMethod
from slicewise.inference.predictor import PredictOptions

KNOWN = (
    "tasks",
    "threshold",
    "n_mc_samples",
    "conditional",
    "use_tta",
    "explain_method",
    "modalities",
    "pixel_mm",
)
# Words of the protocols themselves, which say nothing about the prediction.
IGNORED = frozenset({"binary_data_output", "content_type", "priority", "timeout"})


@dataclass(frozen=True)
class Parameters:
    """What a request asks for.

    Attributes:
        options: For the Predictor.
        modalities: The channels' names; None when not given.
        pixel_mm: Row and column spacing; None when not given.
    """

    options: PredictOptions
    modalities: tuple[str, ...] | None = None
    pixel_mm: tuple[float, float] | None = None


def read_parameters(given: Mapping[str, Any]) -> Parameters:
    """Validate a request's parameters.

    Raises:
        InputError: An unknown name or a value out of range; names the parameter.
    """
    for name in given:
        if name not in KNOWN and name not in IGNORED:
            near = difflib.get_close_matches(name, KNOWN, n=1)
            hint = f", did you mean {near[0]!r}?" if near else ""
            raise InputError(f"parameter {name!r} is unknown{hint}", f"use {', '.join(KNOWN)}")
    tasks, threshold = given.get("tasks"), given.get("threshold")
    options = PredictOptions(
        tasks=PredictOptions.tasks if tasks is None else words(tasks, "tasks"),
        threshold=None if threshold is None else number(threshold, "threshold"),
        conditional=_flag(given, "conditional"),
        n_mc_samples=_whole(given.get("n_mc_samples", PredictOptions.n_mc_samples), "n_mc_samples"),
        use_tta=_flag(given, "use_tta"),
        # Any other word is refused by the options themselves.
        explain_method=cast("ExplainMethod", given.get("explain_method", PredictOptions.explain_method)),
    )
    modalities, pixel_mm = given.get("modalities"), given.get("pixel_mm")
    return Parameters(
        options,
        None if modalities is None else words(modalities, "modalities"),
        None if pixel_mm is None else spacing(pixel_mm),
    )


def words(value: Any, name: str) -> tuple[str, ...]:
    """A list of words, or one string with commas.

    Raises:
        InputError: Anything else.
    """
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list | tuple) or not all(isinstance(item, str) and item.strip() for item in items):
        raise InputError(f"{name}: {value!r} is not a list of names", f'send "a,b" or ["a", "b"] as {name}')
    return tuple(item.strip() for item in items)


def number(value: Any, name: str) -> float:
    """A finite number, also when written as a string.

    Raises:
        InputError: Anything else.
    """
    try:
        result = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        result = math.nan
    if not math.isfinite(result):
        raise InputError(f"{name}: {value!r} is not a number", "send a number")
    return result


def spacing(value: Any) -> tuple[float, float]:
    """``pixel_mm``: one number for square pixels, or the rows' and the columns' spacing.

    Raises:
        InputError: Not one or two numbers in a range that scanners have.
    """
    items = value.split(",") if isinstance(value, str) else value
    items = items if isinstance(items, list | tuple) else [items]
    sizes = [number(item, "pixel_mm") for item in items]
    if len(sizes) not in (1, 2) or not all(0.01 <= size <= 100 for size in sizes):
        raise InputError(f"pixel_mm: {value!r}", "send the pixel's side in mm, or 'height,width', from 0.01 to 100")
    return sizes[0], sizes[-1]


def _whole(value: Any, name: str) -> int:
    result = number(value, name)
    if result != int(result):
        raise InputError(f"{name}: {value!r} is not a whole number", "send a whole number")
    return int(result)


def _flag(given: Mapping[str, Any], name: str) -> bool:
    value = given.get(name, False)
    text = str(value).strip().lower()
    if text not in ("true", "false", "1", "0"):
        raise InputError(f"{name}: {value!r} is neither true nor false", "send true or false")
    return text in ("true", "1")
