"""The verbs ``run`` and ``compile``. Imported at every start of the command line: heavy imports are inside."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines import remote_commands
from slicewise.cli_options import ConfigFile, Json, Mode, Overrides, Sources, emit
from slicewise.config import load_config
from slicewise.errors import UsageError

RUNS = Path("runs")
LOG_WIDTH = 140


def register(app: typer.Typer) -> None:
    """Add the pipeline's verbs to the command line."""
    remote_commands.register(app)
    app.command("run")(run)
    app.command("compile")(compile_)


def run(
    source: Sources = None,
    mode: Mode = "smoke",
    out: Annotated[Path | None, typer.Option(help="The run's folder; default runs/<time>-<mode>/.")] = None,
    config: ConfigFile = None,
    set_: Overrides = None,
    runner: Annotated[str, typer.Option(help="'local' or 'kfp': both are kfp.local on this machine.")] = "local",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an unfinished run: --out, or else the newest.")
    ] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the servers running at the end.")] = False,
    fail_on_gate: Annotated[bool, typer.Option("--fail-on-gate", help="Exit 1 when the gate refuses.")] = False,
    cluster: Annotated[
        Path | None, typer.Option(help="cluster.yaml: only caching and environment have a meaning here.")
    ] = None,
    json: Json = False,
) -> None:
    """Run the whole pipeline: raw scans in, a served model out.

    Example: slicewise run --source ../data/brats --mode smoke
    """
    if runner not in ("local", "kfp"):
        raise UsageError(
            f"unknown runner {runner!r}", "use local or kfp; 'slicewise compile' writes the cluster's file"
        )
    from rich.console import Console

    from pipelines.cluster import load_cluster
    from pipelines.job import run_job
    from pipelines.runs import Run, latest_unfinished, new_folder
    from pipelines.summary import show_summary

    placed = load_cluster(cluster)
    if resume:
        if source or config or set_:
            raise UsageError(
                "--resume goes on with the run's own sources and configuration",
                "leave out --source, --config and --set, or start a new run",
            )
        job = Run.open(out or latest_unfinished(RUNS))
    else:
        settings = load_config(mode, config, set_ or [])
        job = Run.create(out or new_folder(mode, RUNS), settings, source or ["phantom"])
    console = Console(stderr=True)
    if not console.is_terminal:
        console = Console(stderr=True, width=LOG_WIDTH)
    result = run_job(job, console, keep=keep, cluster=placed)
    show_summary(console, result)
    emit(result, as_json=json)
    if fail_on_gate and result["gate"] != "passed":
        raise typer.Exit(1)


def compile_(
    out: Annotated[Path, typer.Option("--out", "-o", help="The YAML file to write.")] = Path("slicewise.yaml"),
    mode: Mode = "baseline",
    config: ConfigFile = None,
    set_: Overrides = None,
    cluster: Annotated[Path | None, typer.Option(help="cluster.yaml: image, GPUs, memory, node pools.")] = None,
    components: Annotated[
        Path | None, typer.Option(help="Write every component as YAML into this folder, for other pipelines.")
    ] = None,
    katib: Annotated[
        Path | None, typer.Option(help="Write the search of 'slicewise tune' as a Katib Experiment into this file.")
    ] = None,
    space: Annotated[
        Path | None, typer.Option(help="With --katib: what is tried. Default: configs/tune.yaml.")
    ] = None,
    json: Json = False,
) -> None:
    """Write the pipeline as KFP v2 YAML for the Kubeflow UI or API.

    Example: slicewise compile --mode baseline --cluster cluster.yaml -o slicewise.yaml

    Example: slicewise compile --components components-yaml
    """
    settings = load_config(mode, config, set_ or [])
    from pipelines.cluster import load_cluster
    from pipelines.compile import compile_pipeline, write_components

    if components is not None:
        written = [str(path) for path in write_components(components)]
        emit({"components": written}, as_json=json, text=f"wrote {len(written)} components to {components}")
        return
    if katib is not None:
        from pipelines.katib import write_experiment
        from slicewise.config.tune import load_tune

        write_experiment(load_tune(space), settings, load_cluster(cluster), katib)
        emit({"experiment": str(katib)}, as_json=json, text=f"wrote {katib}: kubectl apply -f {katib}")
        return
    path = compile_pipeline(settings, load_cluster(cluster), out)
    emit({"pipeline": str(path)}, as_json=json, text=f"wrote {path}: upload it in the Kubeflow UI")
