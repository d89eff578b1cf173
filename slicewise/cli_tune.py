"""The verb that searches for settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slicewise.cli_options import ConfigFile, Json, Mode, Out, Overrides, emit
from slicewise.cli_stages import SplitFolder, Store
from slicewise.config.tune import load_tune
from slicewise.progress import progress

Space = Annotated[Path | None, typer.Option(help="What is tried, a YAML file. Default: configs/tune.yaml.")]
Trials = Annotated[int | None, typer.Option(help="Trials in all, those of earlier calls counted.")]
Minutes = Annotated[float | None, typer.Option(help="How long this call may take.")]


def register(app: typer.Typer) -> None:
    """Add the search's verb to the command line."""
    app.command("tune")(tune)


def tune(
    store: Store,
    split_folder: SplitFolder,
    out: Out,
    space: Space = None,
    trials: Trials = None,
    timeout_minutes: Minutes = None,
    mode: Mode = "smoke",
    config: ConfigFile = None,
    set_: Overrides = None,
    json: Json = False,
) -> None:
    """Search for the settings with the best validation score; the test side is not read.

    Called again after a kill or a timeout it goes on; called again with more --trials it adds them. The best settings
    are a configuration file, best.yaml, for 'slicewise run --config'.

    Example: slicewise tune --store work/store --split work/split --out work/tune --trials 30

    Example: slicewise tune --store work/store --split work/split --out work/tune --space my-space.yaml
    --set train.joint.epochs=2
    """
    searched = load_tune(space, {"trials": trials, "timeout_minutes": timeout_minutes})
    from slicewise.tuning.search import TuneJob, tune_stage

    job = TuneJob(searched, mode, config, tuple(set_ or ()), store, split_folder)
    with progress("tune") as update:
        result = tune_stage(job, out, update)
    best, file = result["best"], out / "best.yaml"
    counts = ", ".join(f"{count} {state}" for state, count in result["counts"].items() if count)
    text = f"{file}: {result['monitor']} {best['score']:.4f} on validation, trial {best['folder']}; {counts}"
    emit({"out": str(out), "best_config": str(file), **result}, as_json=json, text=text)
