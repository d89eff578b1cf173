"""``cluster.yaml`` on this machine: what the local runner does not do, said once."""

from __future__ import annotations

import logging
from typing import Any

from pipelines.cluster import ClusterConfig
from pipelines.cluster_parts import StageSettings

logger = logging.getLogger("pipelines.local")
# What the local runner does as well: caching, and plain environment.
HONOURED = {"cache", "env"}


def local_settings(cluster: ClusterConfig) -> ClusterConfig:
    """What of the settings has a meaning on this machine.

    Tasks are not tried again: the local runner would wait, and repeat a deterministic failure.
    """
    cached = {name: StageSettings(cache=stage.cache) for name, stage in cluster.stages.items()}
    return ClusterConfig(retries=0, gpu_count=0, cache=cluster.cache, env=cluster.env, stages=cached)


def ignored_settings(cluster: ClusterConfig) -> list[str]:
    """The settings that were changed and have no meaning on this machine, by name."""
    default = ClusterConfig()
    return [name for name in sorted(cluster.model_fields_set - HONOURED) if _matters(name, cluster, default)]


def _matters(name: str, cluster: ClusterConfig, default: ClusterConfig) -> bool:
    if name != "stages":
        return bool(getattr(cluster, name) != getattr(default, name))
    given: list[dict[str, Any]] = [stage.model_dump(exclude_none=True) for stage in cluster.stages.values()]
    return any(set(stage) - {"cache"} for stage in given)


def tell_ignored(cluster: ClusterConfig) -> None:
    """One line in the log about the settings that are not followed here."""
    if names := ignored_settings(cluster):
        logger.warning(
            "the local runner ignores of the cluster's settings: %s; they hold in the compiled pipeline",
            ", ".join(names),
        )
