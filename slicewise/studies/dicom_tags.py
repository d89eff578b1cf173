"""Single DICOM tags, checked: what is missing, senseless or hostile raises a ``ValueError`` that names it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

MAX_TEXT, MAX_VALUES = 256, 16


def text(dataset: Any, keyword: str) -> str:
    """A tag's text on one line, cut to ``MAX_TEXT``; empty where the tag is missing."""
    value = dataset.get(keyword)
    return "" if value is None else " ".join(str(value).split())[:MAX_TEXT]


def texts(dataset: Any, keyword: str) -> tuple[str, ...]:
    """A tag's values in upper case, at most ``MAX_VALUES``."""
    value = dataset.get(keyword)
    if value is None:
        return ()
    values = [value] if isinstance(value, str) else list(value)
    return tuple(str(item).strip().upper() for item in values[:MAX_VALUES])


def number(dataset: Any, keyword: str) -> float | None:
    """A finite number, the first of several; None where the tag is missing or empty."""
    value = dataset.get(keyword)
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = value[0] if value else None
    if value is None or value == "":
        return None
    found = float(value)
    if not np.isfinite(found):
        raise ValueError(f"{keyword} is {found}")
    return found


def integer(dataset: Any, keyword: str, default: int | None = None) -> int:
    """A whole number.

    Raises:
        ValueError: The tag is missing and there is no default.
    """
    found = number(dataset, keyword)
    if found is None:
        if default is None:
            raise ValueError(f"{keyword} is missing")
        return default
    return int(found)


def numbers(dataset: Any, keyword: str, count: int) -> tuple[float, ...]:
    """Exactly ``count`` finite numbers.

    Raises:
        ValueError: The tag is missing or holds something else.
    """
    value = dataset.get(keyword)
    if value is None:
        raise ValueError(f"{keyword} is missing")
    found = tuple(float(item) for item in value)
    if len(found) != count or not np.isfinite(found).all():
        raise ValueError(f"{keyword} is {str(value)[:80]}, not {count} numbers")
    return found


def part(group: Any, shared: Any, key: str, required: bool = True) -> Any:
    """One functional group of a frame, its own or the one that all frames share."""
    for holder in (group, shared):
        sequence = holder.get(f"{key}Sequence") if holder is not None else None
        if sequence:
            return sequence[0]
    if required:
        raise ValueError(f"{key}Sequence is missing")
    return {}
