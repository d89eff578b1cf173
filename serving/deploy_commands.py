"""The verbs ``package`` and ``deploy``. Imported at every start of the command line: heavy imports are inside."""

from __future__ import annotations

from json import dumps
from pathlib import Path
from typing import Annotated, Any

import typer

from slicewise.cli_options import ConfigFile, Json, Mode, Out, Overrides, emit
from slicewise.config import ServeConfig, load_config
from slicewise.errors import UsageError


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
    bundle: Annotated[Path | None, typer.Option(help="The bundle folder, from 'package'.")] = None,
    archive: Annotated[Path | None, typer.Option(help="The .mar file or its folder, from 'package'.")] = None,
    status: Annotated[bool, typer.Option("--status", help="Show which versions serve and wait.")] = False,
    history: Annotated[bool, typer.Option("--history", help="Show every version there was.")] = False,
    promote: Annotated[bool, typer.Option("--promote", help="Make the waiting candidate the served one.")] = False,
    rollback: Annotated[bool, typer.Option("--rollback", help="Drop the candidate, or go back one version.")] = False,
    unlock: Annotated[bool, typer.Option("--unlock", help="End the claim of a deployment that died.")] = False,
    target: Annotated[str, typer.Option(help="'local' or 'kserve'.")] = "local",
    work: Annotated[Path, typer.Option(help="Folder for the local server's state and logs.")] = Path("runs/serving"),
    mode: Mode = "smoke",
    config: ConfigFile = None,
    set_: Overrides = None,
    json: Json = False,
) -> None:
    """Serve a packaged model: TorchServe and the gateway here, or an InferenceService in the cluster.

    Example: slicewise deploy --bundle work/package/bundle --archive work/package/archive

    Example: slicewise deploy --target kserve --rollback --set serve.storage_uri=s3://models/slicewise
    """
    settings = load_config(mode, config, set_ or [])
    asked = {"status": status, "history": history, "promote": promote, "rollback": rollback, "unlock": unlock}
    if chosen := [name for name, given in asked.items() if given]:
        result = _ask_state(chosen, target, settings.serve)
        emit(result, as_json=json, text=dumps(result, indent=2))
        return
    if bundle is None or archive is None:
        raise UsageError("--bundle and --archive are missing", "name both, or use --status, --history or the like")
    from serving.deploy import deploy_model

    served = deploy_model(bundle, archive, settings.serve, target, work)
    emit(served, as_json=json, text=_told(served))


def _told(served: dict[str, Any]) -> str:
    if served["target"] == "local":
        return f"served at {served['url']}; stop it with: kill {served['pid']}"
    if served["registry_state"] == "candidate":
        return f"{served['version']} passed and waits: slicewise deploy --target kserve --promote, or --rollback"
    checked = "" if served["verified"] else " (not asked: it cannot be reached from here)"
    return f"{served['version']} is served at {served['url']}{checked}"


def _ask_state(chosen: list[str], target: str, config: ServeConfig) -> dict[str, Any]:
    """The one of ``--status``, ``--history``, ``--promote``, ``--rollback`` and ``--unlock`` that was given."""
    if len(chosen) > 1:
        raise UsageError(f"--{chosen[0]} and --{chosen[1]} exclude each other", "give one of them")
    if target != "kserve":
        raise UsageError(f"--{chosen[0]} is for the cluster", "add --target kserve")
    from serving import deploy_state

    actions = {
        "status": deploy_state.deployment_status,
        "history": deploy_state.deployment_history,
        "promote": deploy_state.promote_candidate,
        "rollback": deploy_state.roll_back,
        "unlock": deploy_state.unlock,
    }
    return actions[chosen[0]](config)
