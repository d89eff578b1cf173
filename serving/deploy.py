"""The ``deploy`` stage: a server on this machine, or an InferenceService in the cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from serving.local import STATE, start_detached
from slicewise.config import ServeConfig
from slicewise.errors import UsageError

TARGETS = ("local", "kserve")


def deploy_model(
    bundle: Path, archive: Path, config: ServeConfig, target: str, work: Path, owner_pid: int | None = None
) -> dict[str, Any]:
    """Serve a packaged model.

    Args:
        bundle: The bundle folder.
        archive: The ``.mar`` file or the folder that holds it.
        config: The section ``serve``.
        target: ``local`` starts TorchServe and the gateway on loopback; ``kserve`` uploads the archive and
            applies an InferenceService.
        work: Folder for state and logs of a local server.
        owner_pid: A local server stops when this process ends; None lets it run on.

    Returns:
        ``url``, ``target``, ``digest`` and, for a local server, ``state`` (the path of its state file).

    Raises:
        UsageError: An unknown target.
        ServerError: The server did not start, or the cluster refused.
    """
    if target not in TARGETS:
        raise UsageError(f"unknown target {target!r}", f"use one of {', '.join(TARGETS)}")
    mar = archive if archive.is_file() else archive / f"{config.model_name}.mar"
    if target == "kserve":
        from serving.kserve_target import deploy_inference_service

        return deploy_inference_service(bundle, mar, config)
    state = start_detached(bundle, mar, config, work, owner_pid)
    return {"target": target, "url": state.gateway_url, "state": str(work / STATE), "pid": state.pid}
