"""The quality gate: test figures against the limits of the configuration."""

from __future__ import annotations

from typing import Any

from slicewise.config import GateConfig


def judge(metrics: dict[str, Any], gate: GateConfig) -> dict[str, Any]:
    """Decide whether a model may be deployed.

    A figure that is undefined on this test split (no masks, one class) is not held against the model, but a
    model of which nothing could be judged does not pass.

    Args:
        metrics: As ``evaluate`` writes them.
        gate: The limits.

    Returns:
        ``{"passed", "criteria": [{"name", "value", "limit", "kind", "passed"}], "reasons": [...]}``; a
        criterion's ``passed`` is None where the figure is undefined.
    """
    figures = metrics["classification"]["slice"]["figures"]
    values = {
        "min_roc_auc": ("ROC-AUC (slices)", figures.get("roc_auc")),
        "min_sensitivity": ("sensitivity (slices)", figures.get("sensitivity")),
        "min_dice_wt": ("Dice of WT (patients)", metrics["segmentation"]["WT"]["dice"]),
        "max_ece": ("ECE (slices)", figures.get("ece")),
    }
    criteria = []
    for key, (name, figure) in values.items():
        limit = getattr(gate, key)
        if limit is not None:
            value = figure["value"] if figure else None
            kind = "at least" if key.startswith("min") else "at most"
            passed = None if value is None else (value >= limit if kind == "at least" else value <= limit)
            criteria.append({"name": name, "value": value, "limit": limit, "kind": kind, "passed": passed})
    reasons = [
        f"{c['name']} is {c['value']:.3f}, {c['kind']} {c['limit']:g} is wanted"
        for c in criteria
        if c["passed"] is False
    ]
    if criteria and all(criterion["passed"] is None for criterion in criteria):
        reasons.append("none of the gate's figures is defined on this test split")
    return {"passed": not reasons, "criteria": criteria, "reasons": reasons}
