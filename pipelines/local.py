"""Run the pipeline on this machine with kfp.local, resume it, and collect what came out."""

from __future__ import annotations

import os
import shutil
import warnings
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from kfp import local
from rich.console import Console

from components.runtime import KEEP_VARIABLE, OWNER_VARIABLE
from pipelines.cluster import ClusterConfig
from pipelines.display import StageDisplay
from pipelines.local_settings import local_settings, tell_ignored
from pipelines.pipeline import build_pipeline
from pipelines.runs import LOG, Run
from slicewise.errors import PipelineError
from slicewise.files import atomic_folder

SECTIONS = ("download", "preprocess", "split", "model", "train", "calibrate", "evaluate", "gate", "serve")
COPIED = ("metrics.json", "report.html")
PAPERWORK = ("model_card.*", "claim-2024.*", "tripod-ai.*")
PICTURES = "pictures"


def run_pipeline(
    run: Run, console: Console, *, keep: bool, cluster: ClusterConfig | None = None
) -> dict[str, dict[str, Any]]:
    """Run every stage that has not finished yet.

    Finished stages are found in the local runner's cache, which lies in the run's folder: a stage's key is its
    code, its parameters and its inputs, so a changed setting makes only the stages run again that read it.

    Args:
        run: The run's folder.
        console: Where to show progress.
        keep: Whether the servers that ``deploy`` starts outlive this process.
        cluster: Settings of which only caching and plain environment have a meaning here; the others are named
            in the log.

    Returns:
        The record of every finished stage.

    Raises:
        PipelineError: A stage failed; says which, why, and how to go on.
    """
    os.environ[OWNER_VARIABLE] = str(os.getpid())
    os.environ[KEEP_VARIABLE] = "1" if keep else ""
    cluster = cluster or ClusterConfig()
    tell_ignored(cluster)
    pipeline = build_pipeline(run.config, local_settings(cluster), deploy_target="local")
    local.init(
        local.SubprocessRunner(use_venv=False),
        pipeline_root=str(run.folder / "pipeline"),
        workspace_root=str(run.folder / "workspace"),
        enable_caching=True,
        cache_root=str(run.folder / "cache"),
    )
    arguments = {name: run.config.section(name) for name in SECTIONS}
    with StageDisplay(run.folder / LOG, console) as display, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with redirect_stdout(display):
                pipeline(sources=run.sources, seed=run.config.seed, run_folder=str(run.folder), **arguments)
        except RuntimeError as error:
            raise _failure(run, display) from error
    return run.records()


def _failure(run: Run, display: StageDisplay) -> PipelineError:
    stage = display.failed or "a stage"
    if display.error:
        return PipelineError(f"{stage}: {display.error}")
    log = run.folder / LOG
    return PipelineError(f"{stage} failed; its output is in {log}", "then go on with --resume")


def collect(run: Run, records: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Copy the results that people look for into the run's folder itself.

    Returns:
        What was copied: ``metrics``, ``report``, ``bundle``, with their paths.
    """
    found: dict[str, str] = {}
    evaluation = Path(records["evaluate"]["outputs"]["evaluation"])
    for name in COPIED:
        shutil.copyfile(evaluation / name, run.folder / name)
        found[Path(name).stem] = str(run.folder / name)
    for path in (path for pattern in PAPERWORK for path in evaluation.glob(pattern)):
        shutil.copyfile(path, run.folder / path.name)
    if (evaluation / PICTURES).is_dir():
        with atomic_folder(run.folder / PICTURES) as folder:
            shutil.copytree(evaluation / PICTURES, folder, dirs_exist_ok=True)
    if "package" in records and records["gate"]["figures"]["verdict"] == "passed":
        bundle = run.folder / "bundle"
        with atomic_folder(bundle) as folder:
            shutil.copytree(records["package"]["outputs"]["bundle"], folder, dirs_exist_ok=True)
        found["bundle"] = str(bundle)
    return found
