"""From an uploaded version to a served one: at once where nothing serves, else by a canary that can fail."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from serving.canary import PROBES, probe_slices, walk_steps
from serving.canary_beside import Beside
from serving.canary_revision import Revision
from serving.kserve_cluster import STOP_ANNOTATION, Cluster
from serving.kserve_manifest import inference_service, is_serverless
from serving.kserve_ready import Ready, address_of, wait_ready
from serving.ledger import Version
from serving.local import smoke_requests
from serving.registry import Registry
from slicewise.config import MODALITIES
from slicewise.errors import ServerError, SliceWiseError
from slicewise.inference.predictor import SliceInput

log = logging.getLogger(__name__)


def roll_out(cluster: Cluster, registry: Registry, version: Version) -> Ready:
    """Serve a version that lies in the storage, and record what becomes of it.

    Args:
        cluster: The InferenceService.
        registry: Its ``serving`` version is the one that a canary is compared with.
        version: The version, not recorded yet.

    Raises:
        ServerError: It does not serve, or the canary failed; whatever served before serves as before.
    """
    before = cluster.read()
    former = registry.read().in_state("serving")
    registry.add(version)
    try:
        if former is None or former.name == version.name or not cluster.config.canary.steps or not _serves(before):
            return promote(cluster, registry, version)
        return _canary(cluster, registry, version)
    except BaseException as error:
        _record_failure(registry, version, former, error)
        raise


def promote(cluster: Cluster, registry: Registry, version: Version) -> Ready:
    """Make a version the served one; when it does not serve, everything is put back as it was.

    Raises:
        ServerError: It does not serve.
    """
    before = cluster.read()
    registry.require_claim()
    try:
        generation = cluster.apply(manifest_of(cluster, version))
        ready = wait_ready(cluster, generation, version.bundle_digest)
        if ready.verified:
            smoke(ready.url, version.bundle_digest)
        registry.move(version.name, "serving")
    except BaseException:
        _restore(cluster, before, version)
        raise
    return ready


def smoke(url: str, digest: str) -> None:
    """One classification and one segmentation, answered by the right model.

    Raises:
        ServerError: No answer, or another model's.
    """
    figures = smoke_requests(url, SliceInput(probe_slices(1)[0][None], MODALITIES[:1]))
    if figures.model_digest != digest:
        raise ServerError(f"{url} was answered by bundle {figures.model_digest[:12]}", "deploy again")
    log.info("%s classifies in %.0f ms and segments in %.0f ms", url, figures.classify_ms, figures.segment_ms)


def manifest_of(cluster: Cluster, version: Version) -> dict[str, Any]:
    """The InferenceService of a version, running."""
    manifest = inference_service(cluster.config, version.storage_uri, version.bundle_digest)
    manifest["metadata"]["annotations"][STOP_ANNOTATION] = "false"
    return manifest


def way_of(cluster: Cluster) -> Beside | Revision:
    """How a candidate stands beside what serves in this cluster."""
    service = cluster.read()
    return Revision(cluster) if service is not None and is_serverless(service) else Beside(cluster)


def _serves(service: Mapping[str, Any] | None) -> bool:
    if service is None or (service["metadata"].get("annotations") or {}).get(STOP_ANNOTATION) == "true":
        return False
    return bool(address_of(service))


def _canary(cluster: Cluster, registry: Registry, version: Version) -> Ready:
    limits, way, kept = cluster.config.canary, way_of(cluster), False
    registry.require_claim()
    slices = probe_slices(min(PROBES, limits.requests))
    try:
        ready = way.start(manifest_of(cluster, version), version)

        def share(percent: int) -> None:
            registry.require_claim()
            way.share(percent)

        with way.askers(ready) as (new, former):
            reason = walk_steps(new, former, limits, share, slices)
        if reason:
            raise ServerError(f"the canary of {version.name} failed {reason}", "the former version serves as before")
        if limits.promote:
            ready = promote(cluster, registry, version)
        else:
            log.info("%s waits: 'slicewise deploy --target kserve --promote' or --rollback", version.name)
        kept = True
        return ready
    finally:
        if limits.promote or not kept:
            _drop(way, version)


def _restore(cluster: Cluster, before: Mapping[str, Any] | None, version: Version) -> None:
    """Put back what served before; whatever went wrong before is the news."""
    try:
        cluster.restore(before, version.bundle_digest)
    except SliceWiseError as error:
        log.error("InferenceService %s could not be put back: %s", cluster.config.model_name, error)


def _drop(way: Beside | Revision, version: Version) -> None:
    """Take the candidate away; whatever went wrong before is the news."""
    try:
        way.drop(version.bundle_digest)
    except SliceWiseError as error:
        log.error("the candidate %s could not be stopped: %s", version.name, error)


def _record_failure(registry: Registry, version: Version, former: Version | None, error: BaseException) -> None:
    reason = error.message if isinstance(error, SliceWiseError) else f"interrupted ({type(error).__name__})"
    try:
        if former is not None and former.name == version.name:
            # The same version again, with other settings: what was put back is this very version.
            registry.move(version.name, "serving", f"deploying it again failed: {reason}")
        else:
            registry.move(version.name, "rejected", reason)
    except SliceWiseError as failure:
        log.error("the registry does not know that %s failed: %s", version.name, failure)
