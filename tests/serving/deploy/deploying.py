"""Deploying a model as the command does, and reading the registry's file as a person would."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from models import Model

from serving.kserve_target import deploy_inference_service
from slicewise.config import ServeConfig

BUCKET = "models"


def deploy(model: Model, config: ServeConfig) -> dict[str, Any]:
    return deploy_inference_service(model.bundle.folder, model.archive, config)


def ledger(config: ServeConfig) -> dict[str, Any]:
    path = Path(config.storage_mount) / "brain" / "registry" / "slicewise.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def states(config: ServeConfig) -> dict[str, str]:
    return {item["model_version"]: item["state"] for item in ledger(config)["versions"]}


def limited(config: ServeConfig, **limits: Any) -> ServeConfig:
    return config.model_copy(update={"canary": config.canary.model_copy(update=limits)})


def volume_config(namespace: str, mount: Path) -> ServeConfig:
    mount.mkdir()
    return ServeConfig.model_validate(
        {
            "namespace": namespace,
            "storage_uri": "pvc://models/brain",
            "storage_mount": str(mount),
            "timeout_s": 20,
            "canary": {"steps": [10, 50], "hold_s": 0, "requests": 4, "max_latency_ratio": 20},
        }
    )
