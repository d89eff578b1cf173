"""The verb ``profile``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from slicewise.cli_options import Json, emit
from slicewise.progress import progress

Bundle = Annotated[Path, typer.Argument(metavar="BUNDLE", help="The bundle's folder, from 'package'.")]
Device = Annotated[str, typer.Option(help="A torch device: auto, cpu, cuda, cuda:1 …")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads. Default: all that this process may use.")]
Batches = Annotated[
    list[int] | None, typer.Option("--batch", min=1, help="Slices at once; repeatable. Default: 1, 8.")
]
Tasks = Annotated[str, typer.Option(help="What is asked for: classify, segment, explain, uncertainty.")]
Seconds = Annotated[float, typer.Option(min=0.1, help="How long each batch size is measured.")]


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("profile")(profile)


def profile(
    bundle: Bundle,
    device: Device = "auto",
    threads: Threads = None,
    batch: Batches = None,
    tasks: Tasks = "classify,segment",
    seconds: Seconds = 3.0,
    json: Json = False,
) -> None:
    """Measure latency, throughput and memory of a bundle on this device, for each engine.

    Example: slicewise profile runs/demo/bundle --batch 1 --batch 16
    """
    from slicewise.inference.predictor import PredictOptions
    from slicewise.inference.profile import ProfileJob, profile_bundle

    options = PredictOptions(tuple(task.strip() for task in tasks.split(",")))
    job = ProfileJob(bundle, device, threads, tuple(batch or (1, 8)), options, seconds)
    with progress("profile") as update:
        found = profile_bundle(job, update)
    if json:
        emit(found, as_json=True)
    else:
        _show(found)


def _show(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    title = f"{found['device']} {found['cpu']}, {found['threads']} threads"
    table = Table(
        "engine", "batch", "p50 ms", "p95 ms", "slices/s", "load s", "peak MiB", show_edge=False, title=title
    )
    for engine in found["engines"]:
        if engine["error"]:
            table.add_row(engine["engine"], escape(engine["error"]))
        memory = " + ".join(f"{value:.0f} {where}" for where, value in engine["memory_mib"].items())
        for cost in engine["costs"]:
            latency = cost["latency_ms"]
            figures = (latency["p50"], latency["p95"], cost["slices_per_second"], engine["load_seconds"])
            table.add_row(engine["engine"], str(cost["batch"]), *(f"{value:.1f}" for value in figures), memory)
    Console().print(table)
