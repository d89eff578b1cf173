"""``compare.html``: two runs side by side, in figures and in pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from slicewise.config import REGIONS
from slicewise.evaluation.compare import compare_runs
from slicewise.evaluation.overlay_layers import COLOURS, EXTRA, MISSED
from slicewise.evaluation.page_templates import make_environment
from slicewise.evaluation.report.pictures import Picture, embed_pictures
from slicewise.evaluation.report.plots_compare import compare_plots
from slicewise.evaluation.shown_studies import Study, list_studies
from slicewise.evaluation.words import region_words
from slicewise.files import write_json, write_text

PAGE, DATA = "compare.html", "compare.json"
PICTURED = 24
CONTENTS = (
    ("summary", "Summary"),
    ("differences", "Differences"),
    ("pictures", "Patients that changed most"),
    ("patients", "All shared patients"),
    ("method", "How it was compared"),
)


@dataclass(frozen=True)
class Side:
    """One of the two runs.

    Attributes:
        name: What it is called.
        metrics: Its ``metrics.json``.
        folder: What the names of its pictures are relative to.
    """

    name: str
    metrics: Mapping[str, Any]
    folder: Path


@dataclass(frozen=True)
class Changed:
    """A shared patient, as the viewer shows it."""

    name: str
    row: str
    pictures: str
    flags: tuple[str, ...]
    dice: float | None
    record: Mapping[str, Any]


def write_comparison(a: Side, b: Side, out: Path) -> dict[str, Any]:
    """Compare two runs and write ``compare.json`` and ``compare.html`` into ``out``.

    Args:
        a: The run to compare with.
        b: The other.
        out: The folder.

    Returns:
        The content of ``compare.json``.
    """
    comparison = compare_runs(a.metrics, b.metrics, (a.name, b.name))
    shots = _shots(comparison, a, b)
    shown = {changed.name: changed.pictures for changed, _ in shots}
    rows = {patient["patient"]: f"row-{at}" for at, patient in enumerate(comparison["patients"])}
    page = (
        make_environment()
        .get_template("compare.html.j2")
        .render(
            c=comparison,
            created=datetime.now(UTC).isoformat(timespec="minutes"),
            contents=CONTENTS,
            plots=compare_plots(comparison, rows | shown),
            shots=shots,
            rows=rows,
            shown=shown,
            regions={name: region_words(name) for name in REGIONS},
            colours=COLOURS | {"model only": EXTRA, "missed": MISSED},
            gain=gain_of,
        )
    )
    write_json(out / DATA, comparison)
    write_text(out / PAGE, page)
    return comparison


def gain_of(patient: Mapping[str, Any]) -> float | None:
    """By how much the second run's Dice is better, of the whole tumour or else the first region that has both."""
    for region in REGIONS:
        before, after = patient[region]["dice"]
        if before is not None and after is not None:
            return float(after - before)
    return None


def _shots(comparison: Mapping[str, Any], a: Side, b: Side) -> list[tuple[Changed, list[list[Picture]]]]:
    """The patients that changed most, the losses first, with both runs' pictures of each slice."""
    order = {patient["patient"]: at for at, patient in enumerate(comparison["patients"])}
    told = [(gain, patient) for patient in comparison["patients"] if (gain := gain_of(patient)) is not None]
    most = sorted(told, key=lambda pair: -abs(pair[0]))[:PICTURED]
    pictures = [_pictures(side, {patient["patient"] for _, patient in most}) for side in (a, b)]
    found = []
    for gain, patient in sorted(most, key=lambda pair: pair[0]):
        name, at = patient["patient"], order[patient["patient"]]
        panes = _side_by_side(a.name, b.name, pictures[0].get(name, []), pictures[1].get(name, []))
        if panes:
            flags = (f"Dice {'+' if gain >= 0 else '−'}{abs(gain):.2f}",)
            found.append((Changed(name, f"row-{at}", f"study-{at}", flags, None, {}), panes))
    return found


def _pictures(side: Side, patients: set[str]) -> dict[str, list[Picture]]:
    studies: list[Study] = [s for s in list_studies(side.metrics) if s.record["patient"] in patients]
    embedded = embed_pictures(studies, side.folder)
    found: dict[str, list[Picture]] = {}
    for study in studies:
        found.setdefault(str(study.record["patient"]), []).extend(embedded.get(study.pictures, []))
    return found


def _side_by_side(a: str, b: str, ours: list[Picture], theirs: list[Picture]) -> list[list[Picture]]:
    """For every slice that is pictured, the pictures there are of it, each named by its run."""
    slices: dict[int | None, list[Picture]] = {}
    for name, pictures in ((a, ours), (b, theirs)):
        for picture in pictures:
            named = Picture(picture.source, picture.width, picture.height, f"{name}: {picture.caption}", picture.z)
            slices.setdefault(picture.z, []).append(named)
    return [slices[z] for z in sorted(slices, key=lambda z: -1 if z is None else z)]
