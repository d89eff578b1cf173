"""``report.html``: one self-contained page, from ``metrics.json`` and its pictures alone; and the paperwork."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from slicewise.config import REGIONS
from slicewise.evaluation.checklists import fill_checklists, write_checklists
from slicewise.evaluation.model_card import write_model_card
from slicewise.evaluation.overlay_layers import COLOURS, EXTRA, MISSED
from slicewise.evaluation.page_templates import make_environment
from slicewise.evaluation.report import sections
from slicewise.evaluation.report.pictures import Picture, duplicate_groups, embed_pictures
from slicewise.evaluation.report.plot import Plot
from slicewise.evaluation.report.plots_calibration import calibration_plots
from slicewise.evaluation.report.plots_classification import classification_plots, decision_plot
from slicewise.evaluation.report.plots_segmentation import segmentation_plots
from slicewise.evaluation.report.plots_subgroups import forest_plots
from slicewise.evaluation.report.plots_training import training_plots
from slicewise.evaluation.report.plots_trust import (
    retention_plot,
    sanity_plot,
    score_plot,
    uncertainty_dice_plot,
)
from slicewise.evaluation.shown_studies import Study, list_studies, worst_first
from slicewise.evaluation.words import region_words
from slicewise.files import write_text

FILE = "report.html"
Metrics = Mapping[str, Any]


def write_report(metrics: Metrics, folder: Path, pictures: Path | None = None) -> Path:
    """Write ``report.html``, the model card and the checklists.

    Args:
        metrics: As ``evaluate`` writes them; every figure comes from here.
        folder: Where the files go.
        pictures: What the names of the pictures are relative to; the folder itself if not given.

    Returns:
        The page.
    """
    studies = list_studies(metrics)
    home = pictures or folder
    shown = embed_pictures(studies, home)
    page = make_environment().get_template("report.html.j2").render(**_context(metrics, studies, shown, home))
    write_text(folder / FILE, page)
    write_model_card(metrics, folder)
    write_checklists(metrics, folder)
    return folder / FILE


def _context(
    metrics: Metrics, studies: Sequence[Study], shown: Mapping[str, Sequence[Picture]], home: Path
) -> dict[str, Any]:
    return {
        "m": metrics,
        "created": datetime.now(UTC).isoformat(timespec="minutes"),
        "contents": sections.CONTENTS,
        "plots": _plots(metrics, studies),
        "studies": studies,
        "shots": [
            (study, [[picture] for picture in shown[study.pictures]])
            for study in worst_first(studies)
            if study.pictures in shown
        ],
        "duplicates": duplicate_groups(metrics["data"], home),
        "checklists": fill_checklists(metrics),
        "regions": {name: region_words(name) for name in REGIONS},
        "colours": COLOURS | {"model only": EXTRA, "missed": MISSED},
        "says": sections,
    }


def _plots(metrics: Metrics, studies: Sequence[Study]) -> dict[str, list[Plot]]:
    """The plots of each section; none where there is nothing to draw."""
    uncertainty, explanation = metrics.get("uncertainty") or {}, metrics.get("explanation") or {}
    decision = metrics.get("decision") or {}
    overall = {
        "dice_wt": metrics["segmentation"]["WT"]["dice"],
        "roc_auc": metrics["classification"]["patient"]["figures"].get("roc_auc"),
    }
    return {
        "segmentation": segmentation_plots(studies),
        "classification": classification_plots(metrics["classification"]),
        "decision": _there(decision_plot(studies, decision) if decision else None),
        "calibration": calibration_plots(metrics.get("calibration_figures") or {}),
        "uncertainty": _there(retention_plot(uncertainty), uncertainty_dice_plot(studies)),
        "explanation": _there(sanity_plot(explanation)),
        "foreign": _there(score_plot(_scores(metrics, studies), (metrics.get("ood") or {}).get("threshold"))),
        "subgroups": forest_plots(metrics.get("subgroups") or {}, overall),
        "training": training_plots(metrics.get("training") or {}),
    }


def _there(*plots: Plot | None) -> list[Plot]:
    return [plot for plot in plots if plot is not None]


def _scores(metrics: Metrics, studies: Sequence[Study]) -> dict[str, list[float]]:
    """Scores of foreignness of the groups that the section tells, or else of the test studies."""
    groups = (metrics.get("ood") or {}).get("scores") or {}
    if groups:
        return {name: [float(value) for value in values] for name, values in groups.items()}
    return {"test studies": [study.ood for study in studies if study.ood is not None]}
