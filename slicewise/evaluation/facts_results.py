"""Facts about the results; each is empty where ``metrics.json`` cannot tell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slicewise.evaluation.shown_studies import list_studies
from slicewise.evaluation.words import count, interval, plain

Metrics = Mapping[str, Any]
NAMED = 5
HEADLINES = ("roc_auc", "pr_auc", "sensitivity", "specificity", "ppv", "npv", "f1")


def measures(m: Metrics) -> str:
    """Which figures were taken."""
    figures = ", ".join(plain(name) for name in m["classification"]["slice"]["figures"])
    regional = ", ".join(plain(key) for key, value in m["segmentation"]["WT"].items() if is_figure(value))
    return f"Classification of slices and patients: {figures or 'none'}. Segmentation per region: {regional}"


def statistics(_: Metrics) -> str:
    """How uncertainty and significance are measured."""
    return (
        "95 % intervals from a bootstrap over patients; every figure has its n; runs are compared by paired "
        "permutation tests and DeLong's test with Holm's correction"
    )


def calibration(m: Metrics) -> str:
    """How probabilities were calibrated, and what it did on the test split."""
    fitted = (m.get("calibration") or {}).get("tumour") or {}
    if not fitted:
        return ""
    sides = ((m.get("calibration_figures") or {}).get("tumour") or {}).get("test") or {}
    before, after = (((sides.get(when) or {}).get("figures") or {}).get("ece") for when in ("before", "after"))
    words = f"{fitted.get('method', 'temperature')}: {fitted['reason']}"
    if not after or after.get("value") is None:
        return words
    return f"{words}. ECE on the test split {interval(before)} before, {interval(after)} after"


def subgroups(m: Metrics) -> str:
    """Dice by subgroup."""
    rows = [
        f"{by} {name}: {interval(row['dice_wt'])}"
        for by, groups in (m.get("subgroups") or {}).items()
        for name, row in groups.items()
        if (row.get("dice_wt") or {}).get("value") is not None
    ]
    return f"Dice of the whole tumour by subgroup: {'; '.join(rows)}" if rows else ""


METHODS = {
    "gradcam": "Grad-CAM",
    "hirescam": "HiResCAM",
    "integrated_gradients": "Integrated gradients",
    "occlusion": "Occlusion",
}


def explanation(m: Metrics) -> str:
    """Whether explanations lie on the tumour."""
    section = m.get("explanation") or {}
    told = [f"{plain(key)} {interval(value)}" for key, value in section.items() if _defined(value)]
    method = METHODS.get(section.get("method", ""), "Evidence for tumour")
    return f"{method}, held against the masks: {', '.join(told)}" if told else ""


def uncertainty(m: Metrics) -> str:
    """How good the uncertainty is."""
    score = (m.get("uncertainty") or {}).get("qu_brats")
    return f"Monte-Carlo dropout; QU-BraTS score {interval(score)}" if _defined(score) else ""


def segmentation(m: Metrics) -> str:
    """Dice of the regions."""
    told = [f"{name} {interval(row['dice'])}" for name, row in m["segmentation"].items() if _defined(row["dice"])]
    return f"Dice, mean over patients: {'; '.join(told)}" if told else ""


def classification(m: Metrics) -> str:
    """The headline figures of slices and patients."""
    parts = []
    for level in ("slice", "patient"):
        figures = m["classification"][level]["figures"]
        told = [f"{plain(key)} {interval(figures[key])}" for key in HEADLINES if _defined(figures.get(key))]
        parts += [f"{level}s: {', '.join(told)}"] if told else []
    return "; ".join(parts)


def failures(m: Metrics) -> str:
    """The studies that went wrong."""
    flagged = [study for study in list_studies(m) if study.flags]
    tests = count(len(m["studies"]), "test study", "test studies")
    if not flagged:
        return f"None of {tests} is missed, a false alarm, or below a Dice of one half"
    listed = "; ".join(f"{study.name} ({', '.join(study.flags)})" for study in flagged[:NAMED])
    return f"{len(flagged)} of {tests}: {listed}{'; …' if len(flagged) > NAMED else ''}. Pictures: report.html"


def verdict(m: Metrics) -> str:
    """What the gate said."""
    found = m["verdict"]
    words = "The gate passed the model" if found["passed"] else "The gate refused the model"
    return str(found.get("summary") or words)


def is_figure(value: Any) -> bool:
    """Whether it is a figure's record."""
    return isinstance(value, Mapping) and "value" in value


def _defined(value: Any) -> bool:
    return is_figure(value) and value["value"] is not None
