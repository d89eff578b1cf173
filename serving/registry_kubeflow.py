"""The Kubeflow Model Registry, told of every version that our own registry holds.

Our registry stays the one that decides: states and the claim need compare-and-swap, which the Model Registry's API
does not have. It is told afterwards, and a deployment does not fail because it is away.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

from serving.kserve_manifest import MODEL_FORMAT
from serving.ledger import Version
from serving.registry import Mirror
from slicewise import __version__
from slicewise.config import ServeConfig
from slicewise.errors import ConfigError

T = TypeVar("T")
LONGEST = 300

log = logging.getLogger(__name__)


def mirror_of(config: ServeConfig) -> Mirror | None:
    """What tells ``serve.model_registry`` of versions; None where there is none.

    Raises:
        ConfigError: The client is not installed.
    """
    if not config.model_registry:
        return None
    try:
        import model_registry  # noqa: F401
    except ImportError as error:
        raise ConfigError("serve.model_registry needs its client", "pip install model-registry") from error
    return lambda version: record(config, version)


def record(config: ServeConfig, version: Version) -> None:
    """Create or update one version there; a failure is a warning."""
    from aiohttp import ClientError
    from model_registry.exceptions import StoreError
    from mr_openapi.exceptions import OpenApiException

    try:
        _record(config, version)
    except (ClientError, OSError, StoreError, OpenApiException) as error:
        told = " ".join(str(error).split())[:LONGEST]
        log.warning("%s does not know of %s: %s", config.model_registry, version.name, told)


def _record(config: ServeConfig, version: Version) -> None:
    from model_registry import ModelRegistry
    from model_registry.types import ModelVersionState

    # With a runner of our own: the client's changes every event loop of the process.
    registry = ModelRegistry(config.model_registry, author="slicewise", async_runner=_run)
    known = registry.get_registered_model(config.model_name)
    found = registry.get_model_version(config.model_name, version.name) if known else None
    if found is None:
        registry.register_model(
            config.model_name,
            version.storage_uri,
            model_format_name=MODEL_FORMAT,
            model_format_version="1",
            version=version.name,
            metadata=properties(version),
        )
        return
    found.custom_properties = properties(version)
    found.state = ModelVersionState.ARCHIVED if version.state == "rejected" else ModelVersionState.LIVE
    registry.update(found)


def properties(version: Version) -> dict[str, Any]:
    """A version's digests, lineage and figures as the flat values that the Model Registry keeps."""
    flat: dict[str, Any] = {
        "state": version.state,
        "reason": version.reason,
        "bundle_digest": version.bundle_digest,
        "data_digest": version.data_digest,
        "run_id": version.run_id,
        "code": json.dumps(version.code),
        "slicewise_version": version.slicewise_version or __version__,
        "metrics": json.dumps(version.metrics),
    }
    for name, figure in version.metrics.items():
        value = figure.get("value") if isinstance(figure, dict) else figure
        if isinstance(value, int | float) and not isinstance(value, bool):
            flat[f"metric.{name}"] = float(value)
    return flat


def _run(coroutine: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(coroutine)
