"""The pipeline's stages as verbs, on folders."""

from __future__ import annotations

from json import dumps as quoted
from pathlib import Path
from typing import Annotated, cast

import typer

from slicewise.cli_options import ConfigFile, Json, Mode, Out, Overrides, Sources, emit
from slicewise.config import STAGES, StageName, load_config
from slicewise.errors import UsageError
from slicewise.progress import progress

Store = Annotated[Path, typer.Option(help="The slice store, from 'preprocess'.")]
SplitFolder = Annotated[Path, typer.Option("--split", help="The folder of split.json, from 'split'.")]
Weights = Annotated[Path, typer.Option(help="The trained weights, from 'train --stage joint'.")]
CalibrationFolder = Annotated[Path, typer.Option("--calibration", help="From 'calibrate'.")]


def register(app: typer.Typer) -> None:
    """Add the stages' verbs to the command line."""
    for verb in (download, preprocess, split, train, calibrate, evaluate, gate):
        app.command(verb.__name__)(verb)


def download(
    out: Out,
    source: Sources = None,
    mode: Mode = "smoke",
    config: ConfigFile = None,
    set_: Overrides = None,
    json: Json = False,
) -> None:
    """Resolve sources into a dataset folder with a manifest.

    Called again after a kill or a failure it goes on from what is on disk; called again after success it leaves
    what is there and right. Settings: --set download.max_studies=5, download.workers=8 and so on.

    Example: slicewise download --source ../data/brats --out work/dataset

    Example: slicewise download --source s3://bucket/prefix --source kaggle --out work/dataset
    """
    settings = load_config(mode, config, set_ or [])
    from slicewise.studies.acquire import acquire

    with progress("download") as update:
        data = acquire(
            source or ["phantom"],
            out,
            settings.download,
            settings.seed,
            lambda text, done, total: update(done, total, text),
        )
    text = f"{out}: {len(data.records)} studies, digest {data.digest[:12]}"
    emit({"dataset": str(out), "studies": len(data.records), "digest": data.digest}, as_json=json, text=text)


def preprocess(
    out: Out,
    dataset: Annotated[Path | None, typer.Option(help="A dataset folder, from 'download'.")] = None,
    source: Sources = None,
    mode: Mode = "smoke",
    config: ConfigFile = None,
    set_: Overrides = None,
    json: Json = False,
) -> None:
    """Turn a dataset, or sources directly, into a slice store.

    Example: slicewise preprocess --dataset work/dataset --out work/store
    """
    settings = load_config(mode, config, set_ or [])
    from slicewise.slices.build import build_store
    from slicewise.studies.acquire import acquire

    if (dataset is None) == (source is None):
        raise UsageError("preprocess takes either --dataset or --source", "give one of them")
    if dataset is None:
        dataset = out.with_name(out.name + "-dataset")
        with progress("download") as update:
            acquire(
                source or [],
                dataset,
                settings.download,
                settings.seed,
                lambda text, done, total: update(done, total, text),
            )
    with progress("preprocess") as update:
        store = build_store(dataset, out, settings.preprocess, settings.seed, update)
    slices = sum(len(study.slices) for study in store.studies.values())
    failures = [failure.model_dump() for failure in store.index.failures]
    result = {"store": str(out), "studies": len(store.studies), "slices": slices, "failures": failures}
    emit(result, as_json=json, text=f"{out}: {len(store.studies)} studies, {slices} slices, {len(failures)} left out")


def split(
    store: Store,
    out: Out,
    previous: Annotated[
        Path | None, typer.Option(help="An earlier split: its studies stay where they are, new ones are dealt.")
    ] = None,
    import_: Annotated[
        Path | None,
        typer.Option("--import", help="A split made elsewhere: JSON of three lists, or CSV study_id,side."),
    ] = None,
    mode: Mode = "smoke",
    config: ConfigFile = None,
    set_: Overrides = None,
    json: Json = False,
) -> None:
    """Split by patient group 70/15/15 or into folds, and fail on leakage.

    Example: slicewise split --store work/store --out work/split --set split.folds=5 --set split.fold=0
    """
    given = {"previous": previous, "imported": import_}
    # A quoted path is one YAML word, whatever is in it.
    paths = [f"split.{key}={quoted(str(path))}" for key, path in given.items() if path is not None]
    settings = load_config(mode, config, [*(set_ or []), *paths])
    from slicewise.slices.split import SIDES, split_store

    made = split_store(store, out, settings.split, settings.seed)
    counts: dict[str, int] = {side: len(made.side(side)) for side in SIDES} | {"excluded": len(made.excluded)}
    text = f"{out}: {counts}, {made.audit['duplicate_groups']} duplicate groups, none across sides: audit passed"
    emit({"split": str(out), **counts, "audit": made.audit}, as_json=json, text=text)


def train(
    store: Store,
    split_folder: SplitFolder,
    out: Out,
    stage: Annotated[str, typer.Option(help="seg_warmup, cls_head or joint.")],
    init: Annotated[Path | None, typer.Option(help="The folder of the stage before.")] = None,
    mode: Mode = "smoke",
    config: ConfigFile = None,
    set_: Overrides = None,
    json: Json = False,
) -> None:
    """Train one stage; called again after a kill, it goes on from its last epoch.

    Example: slicewise train --stage seg_warmup --store work/store --split work/split --out work/seg_warmup
    """
    settings = load_config(mode, config, set_ or [])
    if stage not in STAGES:
        raise UsageError(f"unknown training stage {stage!r}", f"use one of {', '.join(STAGES)}")
    from slicewise.training.launch import launch_stage
    from slicewise.training.stage import StageJob

    job = StageJob(
        stage=cast("StageName", stage),
        model=settings.model,
        train=settings.train,
        seed=settings.seed,
        store=store,
        split=split_folder,
        init=init,
        checkpoints=out / "checkpoints",
        tracking=out / "tracking",
    )
    with progress(stage) as update:
        record = launch_stage(job, out, update)
    text = f"{out}: {record['skipped'] or 'best epoch ' + str(record['best_epoch'])}"
    emit({"weights": str(out), **record}, as_json=json, text=text)


def calibrate(
    store: Store,
    split_folder: SplitFolder,
    weights: Weights,
    out: Out,
    mode: Mode = "smoke",
    config: ConfigFile = None,
    set_: Overrides = None,
    json: Json = False,
) -> None:
    """Fit probabilities and decisions on the validation split.

    Example: slicewise calibrate --store work/store --split work/split --weights work/joint --out work/calibration
    """
    settings = load_config(mode, config, set_ or [])
    from slicewise.evaluation.calibrate import calibrate_stage

    with progress("calibrate") as update:
        fitted = calibrate_stage(store, split_folder, weights, settings.model, settings.calibrate, out, update)
    emit(fitted, as_json=json, text=f"{out}: {fitted['calibration']['tumour']['reason']}")


def evaluate(
    store: Store,
    split_folder: SplitFolder,
    weights: Weights,
    calibration: CalibrationFolder,
    out: Out,
    mode: Mode = "smoke",
    config: ConfigFile = None,
    set_: Overrides = None,
    json: Json = False,
) -> None:
    """Judge the model on the test split: metrics.json and report.html.

    Example: slicewise evaluate --store work/store --split work/split --weights work/joint
    --calibration work/calibration --out work/evaluation
    """
    settings = load_config(mode, config, set_ or [])
    from slicewise.evaluation.evaluate import EvaluateJob, evaluate_stage

    job = EvaluateJob(
        store=store,
        split=split_folder,
        weights=weights,
        calibration=calibration,
        model=settings.model,
        evaluate=settings.evaluate,
        gate=settings.gate,
    )
    with progress("evaluate") as update:
        metrics = evaluate_stage(job, out, update)
    emit(metrics, as_json=json, text=f"{out / 'report.html'}")


def gate(
    evaluation: Annotated[Path, typer.Option(help="The folder of metrics.json, from 'evaluate'.")],
    champion: Annotated[
        Path | None, typer.Option(help="The model to replace: a run's folder, a bundle or a metrics.json.")
    ] = None,
    mode: Mode = "smoke",
    config: ConfigFile = None,
    set_: Overrides = None,
    json: Json = False,
) -> None:
    """Hold the test figures against the limits and the champion; exit 1 when they do not reach them.

    Example: slicewise gate --evaluation work/evaluation --set gate.min_roc_auc=0.9

    Example: slicewise gate --evaluation work/evaluation --champion runs/last-month
    """
    named = [] if champion is None else [f"gate.champion={quoted(str(champion))}"]
    settings = load_config(mode, config, [*(set_ or []), *named])
    from slicewise.evaluation.evaluate import FILE
    from slicewise.evaluation.gate import judge
    from slicewise.files import read_result

    verdict = judge(read_result(evaluation / FILE, "evaluate"), settings.gate)
    words = "passed" if verdict["passed"] else f"refused: {'; '.join(verdict['reasons'])}"
    emit(verdict, as_json=json, text=f"gate {words}")
    if not verdict["passed"]:
        raise typer.Exit(1)
