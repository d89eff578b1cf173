"""The verbs ``package`` and ``deploy``. Imported at every start of the command line: heavy imports are inside."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slicewise.cli_options import ConfigFile, Json, Mode, Out, Overrides, emit
from slicewise.config import load_config


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    app.command("package")(package)
    app.command("deploy")(deploy)


def package(
    store: Annotated[Path, typer.Option(help="The slice store, from 'preprocess'.")],
    weights: Annotated[Path, typer.Option(help="The trained weights, from 'train --stage joint'.")],
    calibration: Annotated[Path, typer.Option(help="From 'calibrate'.")],
    evaluation: Annotated[Path, typer.Option(help="From 'evaluate'.")],
    out: Out,
    mode: Mode = "smoke",
    config: ConfigFile = None,
    set_: Overrides = None,
    json: Json = False,
) -> None:
    """Make the model bundle (OUT/bundle) and TorchServe's archive (OUT/archive/<model>.mar).

    Example: slicewise package --store work/store --weights work/joint --calibration work/calibration
    --evaluation work/evaluation --out work/package
    """
    settings = load_config(mode, config, set_ or [])
    from serving.torchserve.archive import build_archive
    from slicewise.inference.package import make_bundle

    name = settings.serve.model_name
    bundle = make_bundle(store, weights, calibration, evaluation, settings.model, name, out / "bundle")
    mar = build_archive(bundle.folder, out / "archive", settings.serve)
    result = {"bundle": str(bundle.folder), "archive": str(mar), "digest": bundle.digest}
    emit(result, as_json=json, text=f"{bundle.folder} and {mar}, digest {bundle.digest[:12]}")


def deploy(
    bundle: Annotated[Path, typer.Option(help="The bundle folder, from 'package'.")],
    archive: Annotated[Path, typer.Option(help="The .mar file or its folder, from 'package'.")],
    target: Annotated[str, typer.Option(help="'local' or 'kserve'.")] = "local",
    work: Annotated[Path, typer.Option(help="Folder for the local server's state and logs.")] = Path("runs/serving"),
    mode: Mode = "smoke",
    config: ConfigFile = None,
    set_: Overrides = None,
    json: Json = False,
) -> None:
    """Serve a packaged model: in the background on this machine, or as an InferenceService.

    Example: slicewise deploy --bundle work/package/bundle --archive work/package/archive
    """
    settings = load_config(mode, config, set_ or [])
    from serving.deploy import deploy_model

    served = deploy_model(bundle, archive, settings.serve, target, work)
    stop = f"; stop it with: kill {served['pid']}" if target == "local" else ""
    emit(served, as_json=json, text=f"served at {served['url']}{stop}")
