"""The end of a run on the terminal: stage by stage, then what to do next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipelines.runs import Run
from slicewise import RESEARCH_USE

ORDER = (
    "download",
    "preprocess",
    "split",
    "train-seg_warmup",
    "train-cls_head",
    "train-joint",
    "calibrate",
    "evaluate",
    "gate",
    "package",
    "deploy",
)


def show_summary(console: Console, result: dict[str, Any]) -> None:
    """Print the table of stages, the served answers, and the next steps.

    Args:
        console: Where to print.
        result: As ``run_job`` returns it.
    """
    table = Table(title=f"SliceWise run {result['run']}", title_justify="left", show_edge=False, pad_edge=False)
    for column, justify in (("stage", "left"), ("time", "right"), ("key figures", "left")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    for name in ORDER:
        record = result["stages"].get(name)
        if record:
            figures = ", ".join(f"{key} {_short(value)}" for key, value in record["figures"].items())
            table.add_row(name.replace("train-", "train: "), f"{record['seconds']:.1f} s", escape(figures))
    console.print(table)
    for name, answer in result["requests"].items():
        figures = ", ".join(f"{key} {_short(value)}" for key, value in answer.items())
        console.print(f"[bold]{name}[/] through the gateway: {escape(figures)}", highlight=False)
    if result["gate"] != "passed":
        console.print(f"[yellow]gate: refused, so nothing was deployed: {escape('; '.join(result['reasons']))}[/]")
    console.print(f"whole run {result['seconds']:.0f} s. {RESEARCH_USE}", highlight=False)
    _next_steps(console, result)


def _next_steps(console: Console, result: dict[str, Any]) -> None:
    run = Path(result["run"])
    lines = [f"report   {run / 'report.html'}  (open it in a browser)"]
    if result["gate"] == "passed":
        url = result["kept_url"] or "http://127.0.0.1:8080"
        if result["kept_url"]:
            page = f"{url}/"
            lines.append(f"served   {url}  (stop it with: kill {result['kept_pid']})")
        else:
            page = f"{url}/ui/"
            lines.append(f"serve    slicewise serve {run} --ui  (listens on {url})")
        lines.append(f"query    curl -F file=@slice.png {url}/classify")
        lines.append(f"         curl -F file=@slice.png {url}/segment")
        lines.append(f"page     open {page} in a browser while it is served")
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def _short(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return str(value)


def relative(run: Run) -> str:
    """The run's folder as the user would type it."""
    try:
        return str(run.folder.relative_to(Path.cwd()))
    except ValueError:
        return str(run.folder)
