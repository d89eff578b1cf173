"""From an uploaded version to a served one: at once where nothing serves, else by a canary that can fail."""

from __future__ import annotations

import logging
from typing import Any

from serving.canary import compare, probe_slices, walk_steps
from serving.kserve_cluster import STOP_ANNOTATION, Cluster
from serving.kserve_manifest import DIGEST_ANNOTATION, inference_service
from serving.kserve_ready import Ready, wait_ready
from serving.registry import Registry, Version
from slicewise.errors import ServerError, SliceWiseError

SHARE_ANNOTATION = "slicewise.dev/canary-percent"

log = logging.getLogger(__name__)


def roll_out(cluster: Cluster, registry: Registry, version: Version) -> Ready:
    """Serve a version that lies in the storage.

    Args:
        cluster: The InferenceService.
        registry: Where the outcome is written; its ``serving`` version is the one to fall back to.
        version: The version, already registered as candidate.

    Raises:
        ServerError: It does not serve, or the canary failed; the former version serves as before.
    """
    former = registry.read().in_state("serving")
    try:
        if former is None or former.name == version.name or _url(cluster.read()) == "":
            return promote(cluster, registry, version)
        return _canary(cluster, registry, version)
    except SliceWiseError as error:
        registry.move(version.name, "rejected", error.message)
        raise


def promote(cluster: Cluster, registry: Registry, version: Version) -> Ready:
    """Make a version the served one; when it does not get ready, the former one is put back.

    Raises:
        ServerError: It does not serve.
    """
    former = registry.read().in_state("serving")
    try:
        ready = start(cluster, version)
    except SliceWiseError:
        if former is not None:
            log.warning("putting version %s back", former.name)
            cluster.apply(_manifest(cluster, former))
        elif cluster.read() is not None:
            cluster.stop()
        raise
    registry.move(version.name, "serving")
    return ready


def start(cluster: Cluster, version: Version) -> Ready:
    """Apply a version under the cluster object's name and wait until it answers."""
    generation = cluster.apply(_manifest(cluster, version))
    return wait_ready(lambda: cluster.read() or {}, generation, version.bundle_digest, cluster.config)


def canary_of(cluster: Cluster) -> Cluster:
    """The second InferenceService, which holds a candidate."""
    return cluster.renamed(f"{cluster.config.model_name}-canary")


def _canary(cluster: Cluster, registry: Registry, version: Version) -> Ready:
    limits = cluster.config.canary
    beside = canary_of(cluster)
    kept = False
    try:
        ready = start(beside, version)
        slices, former_url = probe_slices(), _url(cluster.read())
        reason = walk_steps(
            lambda: compare(ready.url, former_url, slices, limits),
            limits,
            lambda percent: beside.annotate({SHARE_ANNOTATION: str(percent)}),
        )
        if reason:
            raise ServerError(f"the canary of {version.name} failed {reason}", "the former version serves as before")
        if not limits.promote:
            kept = True
            return ready
        return promote(cluster, registry, version)
    finally:
        if not kept and beside.read() is not None:
            beside.annotate({SHARE_ANNOTATION: "0", STOP_ANNOTATION: "true"})


def _manifest(cluster: Cluster, version: Version) -> dict[str, Any]:
    manifest = inference_service(cluster.config, version.storage_uri, version.bundle_digest)
    manifest["metadata"]["annotations"] |= {STOP_ANNOTATION: "false", DIGEST_ANNOTATION: version.bundle_digest}
    return manifest


def _url(service: dict[str, Any] | None) -> str:
    return str(((service or {}).get("status") or {}).get("url") or "")
