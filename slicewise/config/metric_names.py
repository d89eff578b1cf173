"""Names of the figures in ``metrics.json`` that the gate and the comparison know.

A figure is named by its dotted path, such as ``classification.slice.figures.roc_auc``, or by one of the short
names here.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from slicewise.config.base import REGIONS

CLASSIFICATION = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "ppv": "positive predictive value",
    "npv": "negative predictive value",
    "f1": "F1",
    "mcc": "Matthews correlation",
    "roc_auc": "ROC-AUC",
    "pr_auc": "PR-AUC",
    "ece": "ECE",
    "brier": "Brier score",
    "nll": "NLL",
}
SEGMENTATION = {
    "dice": ("dice", "Dice of {}"),
    "iou": ("iou", "IoU of {}"),
    "hd95": ("hd95_mm", "HD95 of {} in mm"),
    "assd": ("assd_mm", "ASSD of {} in mm"),
    "volume_error": ("volume_error_ml", "volume error of {} in ml"),
    "volume_abs_error": ("volume_abs_error_ml", "absolute volume error of {} in ml"),
    "sensitivity": ("sensitivity", "voxel sensitivity of {}"),
    "specificity": ("specificity", "voxel specificity of {}"),
    "lesion_dice": ("lesion_dice", "lesion-wise Dice of {}"),
    "lesion_hd95": ("lesion_hd95_mm", "lesion-wise HD95 of {} in mm"),
}
CALIBRATION = ("ece", "ece_adaptive", "mce", "brier", "nll")
DECISION = {
    "coverage": "coverage of the abstain band",
    "unsure_share": "share of unsure answers",
    "error_share_when_sure": "share of errors among sure answers",
}
SECTIONS = (
    "calibration",
    "calibration_figures",
    "classification",
    "data",
    "decision",
    "explanation",
    "ood",
    "segmentation",
    "split",
    "subgroups",
    "training",
    "uncertainty",
)


def _short_names() -> dict[str, tuple[str, str]]:
    names = {}
    for key, label in CLASSIFICATION.items():
        names[key] = (f"classification.slice.figures.{key}", f"{label} (slices)")
        names[f"patient_{key}"] = (f"classification.patient.figures.{key}", f"{label} (patients)")
    for region in REGIONS:
        for name, (key, label) in SEGMENTATION.items():
            names[f"{name}_{region.lower()}"] = (f"segmentation.{region}.{key}", f"{label.format(region)} (patients)")
    for key in CALIBRATION:
        path = f"calibration_figures.tumour.test.after.figures.{key}"
        names[f"{key}_after"] = (path, f"calibrated {key.replace('_', ' ').upper()} (slices)")
    for key, label in DECISION.items():
        names[key] = (f"decision.abstain.{key}", label)
    return names


_SHORT = _short_names()
SHORT_NAMES = {name: path for name, (path, _) in _SHORT.items()}
_LABELS = dict(_SHORT.values())


def full_path(name: str) -> str:
    """The dotted path that a short name stands for; a path is returned as it is."""
    return SHORT_NAMES.get(name, name)


def label_of(name: str) -> str:
    """A figure's name for people: ``ROC-AUC (slices)``."""
    path = full_path(name)
    return _LABELS.get(path, path)


def check_name(name: str) -> str:
    """Give ``name`` back if it may name a figure: a short name, or a path that begins with a section.

    Raises:
        ValueError: It is neither; names near matches.
    """
    if name in SHORT_NAMES or ("." in name and name.partition(".")[0] in SECTIONS):
        return name
    raise ValueError(f"unknown metric {name!r}{near_names(name, SHORT_NAMES)}")


def near_names(name: str, known: Iterable[str]) -> str:
    """Words that propose up to three known names, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=3)
    return f", did you mean {' or '.join(map(repr, close))}?" if close else ""
