"""What ``slicewise deploy --status``, ``--history``, ``--promote`` and ``--rollback`` do."""

from __future__ import annotations

from typing import Any

from serving.kserve_cluster import Cluster, connect
from serving.kserve_errors import cluster_errors
from serving.registry import Registry, Version
from serving.rollout import canary_of, promote
from serving.storage import Storage, open_storage
from serving.upload import check_store
from slicewise.config import ServeConfig
from slicewise.errors import UsageError


def deployment_status(config: ServeConfig) -> dict[str, Any]:
    """Which versions serve, wait and served before; reads the registry only."""
    ledger = Registry(open_storage(config), config.model_name).read()
    states = {state: ledger.in_state(state) for state in ("serving", "candidate", "former")}
    named = {state: found.name if found else None for state, found in states.items()}
    return {"model_name": config.model_name, **named, "deploying": ledger.claim is not None}


def deployment_history(config: ServeConfig) -> dict[str, Any]:
    """The whole registry, as plain data."""
    return Registry(open_storage(config), config.model_name).read().model_dump(mode="json")


def promote_candidate(config: ServeConfig) -> dict[str, Any]:
    """Make the waiting candidate the served version.

    Raises:
        UsageError: There is none.
        ServerError: Its store is damaged, or it does not serve.
    """
    storage = open_storage(config)
    registry = Registry(storage, config.model_name)
    with cluster_errors(config), registry.claim():
        version = registry.read().in_state("candidate")
        if version is None:
            raise UsageError("there is no candidate to promote", "see 'slicewise deploy --status'")
        return _switch(storage, connect(config), registry, version)


def roll_back(config: ServeConfig) -> dict[str, Any]:
    """Drop the waiting candidate, or, where there is none, serve the former version again.

    Raises:
        UsageError: There is neither.
        ServerError: The former version's store is damaged, or it does not serve.
    """
    storage = open_storage(config)
    registry = Registry(storage, config.model_name)
    with cluster_errors(config), registry.claim():
        ledger, cluster = registry.read(), connect(config)
        if candidate := ledger.in_state("candidate"):
            _stop_canary(cluster)
            registry.move(candidate.name, "rejected", "rolled back by hand")
            return {"dropped": candidate.name, "url": ""}
        former = ledger.in_state("former")
        if former is None:
            raise UsageError("there is no former version to go back to", "see 'slicewise deploy --history'")
        return _switch(storage, cluster, registry, former)


def _switch(storage: Storage, cluster: Cluster, registry: Registry, version: Version) -> dict[str, Any]:
    check_store(storage, version.name)
    ready = promote(cluster, registry, version)
    _stop_canary(cluster)
    return {"serving": version.name, "url": ready.url}


def _stop_canary(cluster: Cluster) -> None:
    beside = canary_of(cluster)
    if beside.read() is not None:
        beside.stop()
