"""What each section of the page shows, and what it says where its data are missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slicewise.evaluation.facts import limits_of, threshold_words
from slicewise.evaluation.gate.lookup import all_figures
from slicewise.evaluation.words import plain

__all__ = ["limits_of", "threshold_words"]
Metrics = Mapping[str, Any]
CONTENTS = (
    ("gate", "The gate"),
    ("pictures", "Where the model sees tumour"),
    ("segmentation", "Segmentation"),
    ("classification", "Classification"),
    ("decision", "Decisions"),
    ("calibration", "Calibration"),
    ("uncertainty", "Uncertainty"),
    ("explanation", "Explanations"),
    ("foreign", "Foreign scans"),
    ("subgroups", "Subgroups"),
    ("studies", "Test studies"),
    ("training", "Training"),
    ("data", "Data"),
    ("paperwork", "Paperwork and limits"),
)
SEGMENTATION_FIGURES = (
    ("dice", "Dice", 3),
    ("iou", "IoU", 3),
    ("hd95_mm", "HD95, mm", 1),
    ("assd_mm", "mean surface distance, mm", 1),
    ("volume_error_ml", "volume error, ml", 1),
    ("volume_abs_error_ml", "absolute volume error, ml", 1),
    ("sensitivity", "voxel sensitivity", 3),
    ("specificity", "voxel specificity", 4),
    ("lesion_dice", "lesion-wise Dice", 3),
    ("lesion_hd95_mm", "lesion-wise HD95, mm", 1),
)
CALIBRATION_FIGURES = ("ece", "ece_adaptive", "mce", "brier", "brier_reliability", "brier_resolution", "nll")
KEY_FIGURES = {
    "uncertainty": (
        ("error_rate", "share of wrong voxels"),
        ("auroc", "does uncertainty tell wrong from right voxels? (AUROC, 0.5: no)"),
        ("rejection_ratio", "way from a random to the best order of handing over (0 to 1)"),
        ("qu_brats", "QU-BraTS score (0 to 1)"),
    ),
    "explanation": (
        ("pointing", "strongest evidence inside the tumour (share of slices)"),
        ("energy_inside", "share of the evidence inside the tumour"),
        ("chance", "both, for a map that knows nothing"),
        ("energy_gain", "evidence inside, times chance"),
    ),
    "ood": (
        ("flagged", "share of test slices flagged as foreign"),
        ("score", "mean score"),
    ),
}
SUBGROUP_FIGURES = ("dice_wt", "dice_tc", "dice_et", "hd95_wt_mm", "sensitivity_wt", "roc_auc")


def calibration_rows(metrics: Metrics) -> list[dict[str, Any]]:
    """One row for each output and side: figures before and after, and how many values."""
    found = []
    for output, sides in (metrics.get("calibration_figures") or {}).items():
        for side in ("validation", "test"):
            both = (sides or {}).get(side) or {}
            for prefix, where in (("", ""), ("foreground_", ", tumour only")):
                before, after = both.get(f"{prefix}before"), both.get(f"{prefix}after")
                if before and after and after.get("n"):
                    name = ("slices" if output == "tumour" else f"{output} pixels") + where
                    found.append({"name": name, "side": side, "before": before, "after": after})
    return found


def figure_rows(section: Metrics | None, name: str) -> list[tuple[str, dict[str, Any]]]:
    """Every figure of a section with its name in words, for sections whose content differs between runs.

    Args:
        section: Of ``metrics.json``.
        name: The section's key.
    """
    if not isinstance(section, Mapping):
        return []
    rows = []
    for path, figure in all_figures({name: section}):
        words = " · ".join(plain(part) for part in path.split(".")[1:])
        rows.append((words, figure.model_dump()))
    return rows


def key_rows(section: Metrics | None, name: str) -> dict[str, Any] | None:
    """The figures of a section that matter most, as a table: its columns, and per row words and figures.

    Args:
        section: Of ``metrics.json``.
        name: The section's key.
    """
    if not isinstance(section, Mapping):
        return None
    parts: dict[str, Any] = {"all": section}
    if name == "uncertainty":
        parts = {region: row for region, row in (section.get("regions") or {}).items() if row}
    if name == "ood":
        parts = {"all": section.get("figures") or {}, **(section.get("by_source") or {})}
    rows = [
        (words, [part.get(key) for part in parts.values()])
        for key, words in KEY_FIGURES.get(name, ())
        if any(isinstance(part.get(key), Mapping) for part in parts.values())
    ]
    return {"columns": [""] if list(parts) == ["all"] else list(parts), "rows": rows} if rows else None


def plain_figure(figure: Metrics) -> str:
    """A count as a count."""
    value = figure["value"]
    return f"{value:.0f}" if value is not None and not figure["n"] and float(value).is_integer() else ""


def why_no(section: str, metrics: Metrics) -> str:
    """One sentence: why a section has nothing to show."""
    found = metrics.get(section)
    if isinstance(found, Mapping) and found.get("reason"):
        return f"Nothing to show: {found['reason']}."
    return _REASONS[section]


_REASONS = {
    "pictures": "No pictures were saved with this evaluation, so there is nothing to look at here.",
    "segmentation": "No test study has a reference mask with tumour in it, so there is nothing to compare.",
    "classification": "No test slice has a known class, so the classification could not be judged.",
    "decision": "This evaluation does not tell how decisions are made.",
    "calibration_figures": "No test slice has a known class: probabilities could not be held against frequencies.",
    "uncertainty": "No uncertainty was sampled, or no test study has a reference to hold it against.",
    "explanation": "No test study has a mask, so that explanations could not be held against it.",
    "ood": "This model has no score of foreign scans.",
    "subgroups": "This evaluation has no subgroups.",
    "training": "There is no training record: the weights came from elsewhere, or every stage was skipped.",
}


def side_of(record: Metrics) -> str:
    """On which side of the brain the model's tumour lies, where that was measured."""
    found = record.get("laterality") or (record.get("measures") or {}).get("laterality")
    if isinstance(found, Mapping):
        found = found.get("side")
    return str(found) if found else ""
