"""The way into a cluster, with what must be there looked for first."""

from __future__ import annotations

import logging
import os
from typing import Any

from serving.kserve_cluster import ASK_S, GROUP, Cluster
from serving.kserve_errors import cluster_errors, is_object_missing
from serving.kserve_manifest import RUNTIME
from slicewise.config import ServeConfig
from slicewise.errors import ServerError

log = logging.getLogger(__name__)


def connect(config: ServeConfig) -> Cluster:
    """The cluster of KUBECONFIG, or the one this pod runs in.

    Raises:
        ServerError: It cannot be reached, refuses us, or lacks KServe or our ServingRuntime.
    """
    # Our module first: it keeps the SDK's hands off the command line.
    import serving.gateway.sdk  # noqa: F401
    from kserve import KServeClient  # isort: skip

    with cluster_errors(config):
        # The Kubernetes client reads KUBECONFIG on import only.
        client = KServeClient(config_file=os.environ.get("KUBECONFIG") or None)
        _require_runtime(client, config)
    return Cluster(client, config)


def _require_runtime(client: Any, config: ServeConfig) -> None:
    """Say now what would otherwise be found out after minutes of waiting."""
    from kubernetes.client import ApiException  # type: ignore[import-untyped]

    place = f"in namespace {config.namespace}"
    try:
        client.api_instance.get_namespaced_custom_object(
            GROUP, "v1alpha1", config.namespace, "servingruntimes", RUNTIME, _request_timeout=ASK_S
        )
    except ApiException as error:
        if error.status == 403:
            log.warning("may not look for ServingRuntime %s %s; going on without", RUNTIME, place)
            return
        if error.status == 404 and is_object_missing(error):
            cure = "kubectl apply --server-side -k manifests/overlays/minimal"
            raise ServerError(f"there is no ServingRuntime {RUNTIME} {place}", cure) from error
        raise
