"""``report.html`` (one self-contained file) and the model card."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from slicewise.config import ModelConfig
from slicewise.evaluation.data_section import duplicate_pictures
from slicewise.evaluation.overlays import draw_overlays
from slicewise.evaluation.plots import (
    COLOURS,
    dice_by_study,
    interval,
    learning_curves,
    reliability,
    roc_and_confusion,
)
from slicewise.files import write_text
from slicewise.slices.store import SliceStore

FILE = "report.html"


def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("slicewise.evaluation"),
        autoescape=select_autoescape(["html.j2", "html"]),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )


def short(figure: dict[str, Any] | None) -> str:
    """A figure's value with three digits, or a dash."""
    return "–" if not figure or figure["value"] is None else f"{figure['value']:.3f}"


def write_report(store_folder: Path, weights: Path, model: ModelConfig, metrics: dict[str, Any], out: Path) -> Path:
    """Draw the plots and write ``report.html`` into ``out``.

    Args:
        store_folder: The slice store, for the overlays.
        weights: The trained weights' folder.
        model: The section ``model``.
        metrics: As ``evaluate`` writes them; every figure of the page comes from here.
        out: The folder.
    """
    slices = metrics["classification"]["slice"]
    calibrated = metrics["test_calibration"]
    store = SliceStore(store_folder)
    page = (
        _environment()
        .get_template("report.html.j2")
        .render(
            m=metrics,
            slice=slices,
            patient=metrics["classification"]["patient"],
            created=datetime.now(UTC).isoformat(timespec="minutes"),
            colours=COLOURS,
            pictures=draw_overlays(store_folder, weights, model, metrics),
            plots={
                "dice": dice_by_study(metrics["studies"]),
                "roc": roc_and_confusion(slices) if slices["n"] else None,
                "reliability": reliability(calibrated["before"], calibrated["after"]) if calibrated else None,
                "learning": learning_curves(metrics["training"]),
            },
            duplicates=duplicate_pictures(store, metrics["data"]),
            interval=interval,
            short=short,
        )
    )
    write_text(out / FILE, page)
    return out / FILE


def model_card(metrics: dict[str, Any], name: str, modalities: tuple[str, ...]) -> str:
    """The model card as Markdown."""
    template = _environment().get_template("model_card.md.j2")
    slices = metrics["classification"]["slice"]
    return template.render(m=metrics, slice=slices, name=name, modalities=modalities, interval=interval)
