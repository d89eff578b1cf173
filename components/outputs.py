"""Figures into Kubeflow's own artifact types, so that its UI shows them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slicewise.files import write_json

CLASSES = ["no tumour", "tumour"]


def log_metrics(artifact: Any, figures: Mapping[str, float | int | None]) -> None:
    """Log the defined figures.

    A file is written too: the local runner takes an artifact without one for missing and never finds it in
    its cache.
    """
    defined = {key: value for key, value in figures.items() if value is not None}
    for key, value in defined.items():
        artifact.log_metric(key, value)
    write_json(Path(artifact.path), defined)


def log_classification(artifact: Any, report: Mapping[str, Any]) -> None:
    """Log the confusion matrix and the ROC curve of a classification report."""
    if report["n"]:
        artifact.log_confusion_matrix(CLASSES, report["confusion"])
        roc = report["roc"]
        if roc["fpr"]:
            artifact.log_roc_curve(roc["fpr"], roc["tpr"], roc["threshold"])
    write_json(Path(artifact.path), {"n": report["n"], "n_positive": report["n_positive"]})
