"""The verb ``report``: the page about a run made anew, or two runs compared."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slicewise.cli_options import Json, emit
from slicewise.errors import UsageError


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("report")(report)


def report(
    run: Annotated[Path | None, typer.Option(help="A run's folder, or the folder of a metrics.json.")] = None,
    compare: Annotated[
        tuple[Path, Path] | None, typer.Option(help="Two runs: the one to compare with, and the new one.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="The folder to write; by default the run's own, or 'comparison'.")
    ] = None,
    json: Json = False,
) -> None:
    """Make the report, model card and checklists of a run anew, or compare two runs.

    Works from metrics.json and its pictures alone: neither data nor weights are needed.

    Example: slicewise report --run runs/20260101-120000-quick

    Example: slicewise report --compare runs/last-month runs/today --out comparison
    """
    if (run is None) == (compare is None):
        raise UsageError("report takes either --run or --compare", "give one of them")
    if run is not None:
        _remake(run, out, as_json=json)
    elif compare is not None:
        _compare(compare, out or Path("comparison"), as_json=json)


def _remake(run: Path, out: Path | None, *, as_json: bool) -> None:
    from slicewise.evaluation.report import write_report
    from slicewise.evaluation.run_folder import open_run

    found = open_run(run)
    page = write_report(found.metrics, out or found.folder, found.pictures)
    emit({"report": str(page), "folder": str(page.parent)}, as_json=as_json, text=str(page))


def _compare(runs: tuple[Path, Path], out: Path, *, as_json: bool) -> None:
    from slicewise.evaluation.report import Side, write_comparison
    from slicewise.evaluation.report.compare_page import PAGE
    from slicewise.evaluation.run_folder import names_of, open_run

    opened = [open_run(run) for run in runs]
    sides = [
        Side(name, run.metrics, run.pictures) for name, run in zip(names_of(runs[0], runs[1]), opened, strict=True)
    ]
    comparison = write_comparison(sides[0], sides[1], out)
    lines = [f"{row['label']}: {row['verdict']}" for row in comparison["rows"] if row["verdict"].endswith("better")]
    text = "\n".join([*comparison["warnings"], *(lines or ["no difference shown"]), str(out / PAGE)])
    emit(comparison, as_json=as_json, text=text)
