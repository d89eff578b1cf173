"""The body of component ``deploy``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.runtime import KEEP_VARIABLE, OWNER_VARIABLE, stage
from serving.deploy import deploy_model
from slicewise.config import ServeConfig, validate
from slicewise.files import write_json

# What a deployment into a cluster tells besides.
TOLD = ("version", "registry_state", "digest", "storage_uri", "verified")


def run(bundle: Any, archive: Any, serve: Mapping[str, Any], target: str, run_folder: str, deployment: Any) -> None:
    """Deploy, and say where the model answers."""
    with stage("deploy", run_folder) as record:
        owner = None if os.environ.get(KEEP_VARIABLE) else os.environ.get(OWNER_VARIABLE)
        served = deploy_model(
            bundle=Path(bundle.path),
            archive=Path(archive.path),
            config=validate(ServeConfig, serve),
            target=target,
            work=Path(run_folder or deployment.path) / "serving",
            owner_pid=int(owner) if owner else None,
        )
        told = {key: served[key] for key in TOLD if key in served}
        record.figures = {"target": target, "url": served["url"]} | told
        record.outputs = {key: str(served[key]) for key in ("state", "url") if served.get(key)}
        write_json(Path(deployment.path), served)
        deployment.metadata.update({"url": served["url"], "target": target} | told)
