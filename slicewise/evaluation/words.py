"""Numbers as people read them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

DASH = "–"
UNDEFINED = "undefined"
_REGIONS = {"WT": "whole tumour", "TC": "tumour core", "ET": "enhancing tumour"}
_ABBREVIATIONS = {
    "auc": "AUC",
    "auroc": "AUROC",
    "aurc": "AURC",
    "roc": "ROC",
    "pr": "PR",
    "ece": "ECE",
    "mce": "MCE",
    "nll": "NLL",
    "ppv": "PPV",
    "npv": "NPV",
    "f1": "F1",
    "mcc": "MCC",
    "iou": "IoU",
    "dice": "Dice",
    "hd95": "HD95",
    "assd": "ASSD",
    "mm": "(mm)",
    "ml": "(ml)",
    "wt": "WT",
    "tc": "TC",
    "et": "ET",
    "ood": "OOD",
    "brier": "Brier",
}


def interval(figure: Mapping[str, Any] | None, digits: int = 3) -> str:
    """``0.912 (0.870–0.951, n=12)``, or a dash where the figure is undefined."""
    if not figure or figure.get("value") is None:
        return DASH
    parts = []
    if figure.get("low") is not None and figure.get("high") is not None:
        low, high = number(figure["low"], digits), number(figure["high"], digits)
        parts.append(f"{low}{' to ' if low.startswith('−') else DASH}{high}")
    if figure.get("n"):
        parts.append(f"n={figure['n']}")
    value = number(figure["value"], digits)
    return f"{value} ({', '.join(parts)})" if parts else value


def short(figure: Mapping[str, Any] | None, digits: int = 3) -> str:
    """A figure's value alone, or a dash."""
    return DASH if not figure else number(figure.get("value"), digits)


def number(value: float | None, digits: int = 3) -> str:
    """A number with so many digits behind the point, a true minus sign, and a dash for nothing."""
    return DASH if value is None else f"{value:.{digits}f}".replace("-", "−")


def percent(value: float | None, digits: int = 0) -> str:
    """A share in percent."""
    return DASH if value is None else f"{100 * value:.{digits}f} %"


def p_value(value: float | None) -> str:
    """``0.031``, ``< 0.001``, or a dash where there is no test."""
    if value is None:
        return DASH
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def plain(name: str) -> str:
    """A key of ``metrics.json`` in words: ``roc_auc`` → ``ROC AUC``, ``hd95_mm`` → ``HD95 (mm)``."""
    return " ".join(_ABBREVIATIONS.get(word, word) for word in re.split(r"[_.]", name))


def region_words(region: str) -> str:
    """``WT`` → ``whole tumour``."""
    return _REGIONS.get(region, region)


def count(number_: int, one: str, many: str = "") -> str:
    """``1 study``, ``3 studies``."""
    return f"{number_} {one if number_ == 1 else many or one + 's'}"


def markdown(text: object) -> str:
    """Text that stays text in Markdown: in one line, no HTML, no code, no cell of a table left."""
    if text is None:
        return ""
    escaped = str(text).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "'")
    return " ".join(escaped.split())
