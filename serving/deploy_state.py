"""What ``slicewise deploy --status``, ``--history``, ``--promote``, ``--rollback`` and ``--unlock`` do."""

from __future__ import annotations

from typing import Any

from serving.kserve_cluster import STOP_ANNOTATION, Cluster, digest_of
from serving.kserve_connect import connect
from serving.kserve_errors import cluster_errors
from serving.kserve_manifest import CANARY_PERCENT
from serving.kserve_pods import find_fault
from serving.kserve_ready import address_of
from serving.ledger import Version
from serving.orderly import orderly_end
from serving.registry import Registry
from serving.registry_kubeflow import mirror_of
from serving.rollout import promote, way_of
from serving.storage import Storage, open_storage
from serving.upload import check_store
from slicewise.config import ServeConfig
from slicewise.errors import ServerError, UsageError

HISTORY = "see 'slicewise deploy --target kserve --history'"


def deployment_status(config: ServeConfig) -> dict[str, Any]:
    """Which versions serve, wait and served before, by the registry, and what the cluster says."""
    ledger = Registry(open_storage(config), config.model_name).read()
    states = {state: ledger.in_state(state) for state in ("serving", "candidate", "former")}
    named = {state: found.name if found else None for state, found in states.items()}
    deploying = ledger.claim.model_dump(include={"holder", "since"}) if ledger.claim else None
    return {
        "model_name": config.model_name,
        **named,
        "deploying": deploying,
        "cluster": _cluster_status(config, states["serving"]),
    }


def deployment_history(config: ServeConfig) -> dict[str, Any]:
    """The whole registry, as plain data."""
    return Registry(open_storage(config), config.model_name).read().model_dump(mode="json")


def promote_candidate(config: ServeConfig) -> dict[str, Any]:
    """Make the waiting candidate the served version.

    Raises:
        UsageError: There is none.
        ServerError: Its store is damaged, or it does not serve.
    """
    storage, registry = _open(config)
    with orderly_end(), registry.claim():
        version = registry.read().in_state("candidate")
        if version is None:
            raise UsageError("there is no candidate to promote", "see 'slicewise deploy --target kserve --status'")
        cluster = connect(config)
        return _switch(storage, cluster, registry, version)


def roll_back(config: ServeConfig) -> dict[str, Any]:
    """Drop the waiting candidate, or, where there is none, serve the former version again.

    Raises:
        UsageError: There is neither.
        ServerError: The former version's store is damaged, or it does not serve.
    """
    storage, registry = _open(config)
    with orderly_end(), registry.claim():
        ledger, cluster = registry.read(), connect(config)
        serving = ledger.in_state("serving")
        if candidate := ledger.in_state("candidate"):
            way_of(cluster).drop(candidate.bundle_digest)
            if serving and digest_of(cluster.read()) == candidate.bundle_digest:
                # Whoever promoted it was killed before it served.
                _switch(storage, cluster, registry, serving)
            registry.move(candidate.name, "rejected", "rolled back by hand")
            return {"dropped": candidate.name, "url": address_of(cluster.read())}
        former = ledger.in_state("former")
        if former is None:
            raise UsageError("there is no former version to go back to", HISTORY)
        answer = _switch(storage, cluster, registry, former)
        if serving is not None:
            # Else the next rollback would come back to it.
            registry.move(serving.name, "rejected", "rolled back by hand")
        return answer


def unlock(config: ServeConfig) -> dict[str, Any]:
    """Take the claim from a deployment that died."""
    claim = Registry(open_storage(config), config.model_name).unlock()
    return {"unlocked": claim.model_dump(include={"holder", "since"}) if claim else None}


def _open(config: ServeConfig) -> tuple[Storage, Registry]:
    storage = open_storage(config)
    return storage, Registry(storage, config.model_name, mirror_of(config))


def _switch(storage: Storage, cluster: Cluster, registry: Registry, version: Version) -> dict[str, Any]:
    check_store(storage, version.name)
    way = way_of(cluster)
    ready = promote(cluster, registry, version)
    way.drop(version.bundle_digest)
    return {"serving": version.name, "url": ready.url}


def _cluster_status(config: ServeConfig, serving: Version | None) -> dict[str, Any]:
    """What the InferenceService says; an error in its place where the cluster does not answer."""
    try:
        with cluster_errors(config):
            cluster = connect(config)
            service = cluster.read()
            if service is None:
                return {"error": f"there is no InferenceService {config.model_name}"}
            fault = find_fault(cluster, digest_of(service))
    except ServerError as error:
        return {"error": str(error)}
    conditions = (service.get("status") or {}).get("conditions") or []
    share = service["spec"]["predictor"].get(CANARY_PERCENT)
    return {
        "url": address_of(service),
        "ready": next((entry["status"] for entry in conditions if entry["type"] == "Ready"), "Unknown"),
        "stopped": (service["metadata"].get("annotations") or {}).get(STOP_ANNOTATION) == "true",
        "serves_the_registered_version": serving is not None and digest_of(service) == serving.bundle_digest,
        "fault": f"{fault.message} — {fault.cure}" if fault else None,
        **({} if share is None else {"canary_percent": share}),
    }
