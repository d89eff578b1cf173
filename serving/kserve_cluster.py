"""One InferenceService in a cluster, through the KServe SDK: read, create, change, stop."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

from serving.kserve_errors import is_object_missing
from serving.kserve_manifest import DIGEST_ANNOTATION, RUNTIME, changes
from slicewise.config import ServeConfig
from slicewise.errors import ServerError

GROUP = "serving.kserve.io"
STOP_ANNOTATION = "serving.kserve.io/stop"
ASK_S = 30
TRIES = 4
CONFLICT = 409
IMPLEMENTATIONS = frozenset(
    {"containers", "huggingface", "lightgbm", "onnx", "paddle", "pmml", "pytorch", "sklearn"}
    | {"tensorflow", "triton", "xgboost"}
)

log = logging.getLogger(__name__)


class Cluster:
    """An InferenceService by name.

    Args:
        client: KServe's client.
        config: Name and namespace.
    """

    def __init__(self, client: Any, config: ServeConfig) -> None:
        self.client = client
        self.config = config

    def renamed(self, name: str) -> Cluster:
        """Another InferenceService of the same namespace."""
        return Cluster(self.client, self.config.model_copy(update={"model_name": name}))

    def read(self) -> dict[str, Any] | None:
        """The object in the cluster; None when there is none.

        Raises:
            ServerError: It is none of ours.
        """
        from kubernetes.client import ApiException  # type: ignore[import-untyped]

        config, api = self.config, self.client.api_instance
        try:
            found: dict[str, Any] = api.get_namespaced_custom_object(
                GROUP, "v1beta1", config.namespace, "inferenceservices", config.model_name, _request_timeout=ASK_S
            )
        except ApiException as error:
            if error.status == 404 and is_object_missing(error):
                return None
            raise
        _require_ours(found, config)
        return found

    def apply(self, manifest: Mapping[str, Any]) -> int:
        """Create or change it; a change by somebody else meanwhile is read again and kept.

        Returns:
            The generation to wait for.

        Raises:
            ServerError: Somebody else brought another model meanwhile.
        """
        before = self.read()
        found = before
        for _ in range(TRIES):
            if _digest(found) not in (_digest(before), _digest(manifest)):
                raise ServerError(
                    f"another deployment of {self.config.model_name} was faster: it brought bundle "
                    f"{_digest(found)[:12]}",
                    "see 'slicewise deploy --status', then deploy again if yours should serve",
                )
            applied = self._try(manifest, found)
            if applied is not None:
                return int(applied["metadata"]["generation"])
            found = self.read()
        raise ServerError(f"InferenceService {self.config.model_name} is changed all the time", "deploy again")

    def annotate(self, annotations: Mapping[str, str]) -> None:
        """Set annotations."""
        patch = {"metadata": {"name": self.config.model_name, "annotations": dict(annotations)}}
        api = self.client.api_instance
        name, namespace = self.config.model_name, self.config.namespace
        api.patch_namespaced_custom_object(GROUP, "v1beta1", namespace, "inferenceservices", name, patch)

    def stop(self) -> None:
        """Take its pods away; needs no right to delete."""
        self.annotate({STOP_ANNOTATION: "true"})

    def _try(self, manifest: Mapping[str, Any], found: Mapping[str, Any] | None) -> dict[str, Any] | None:
        """Create or patch; None when somebody was faster. The SDK wraps errors in RuntimeError."""
        name, namespace = self.config.model_name, self.config.namespace
        try:
            if found is None:
                log.info("creating InferenceService %s in namespace %s", name, namespace)
                created: dict[str, Any] = self.client.create(_as_object(manifest), namespace=namespace)
                return created
            log.info("updating InferenceService %s in namespace %s", name, namespace)
            patch = _as_object(changes(found, manifest))
            patched: dict[str, Any] = self.client.patch(name, patch, namespace=namespace)
        except RuntimeError as error:
            if getattr(error.__context__, "status", None) == CONFLICT:
                return None
            raise
        return patched


def connect(config: ServeConfig) -> Cluster:
    """The cluster of KUBECONFIG, or the one this pod runs in.

    Raises:
        ServerError: Our ServingRuntime is not installed there.
    """
    # Our module first: it keeps the SDK's hands off the command line.
    import serving.gateway.sdk  # noqa: F401
    from kserve import KServeClient  # isort: skip

    # The Kubernetes client reads KUBECONFIG on import only.
    client = KServeClient(config_file=os.environ.get("KUBECONFIG") or None)
    _require_runtime(client, config)
    return Cluster(client, config)


def _require_runtime(client: Any, config: ServeConfig) -> None:
    """Say now what would otherwise be found out after minutes of waiting."""
    from kubernetes.client import ApiException

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


def _require_ours(found: Mapping[str, Any], config: ServeConfig) -> None:
    if others := sorted(IMPLEMENTATIONS & {key for key, value in found["spec"]["predictor"].items() if value}):
        raise ServerError(
            f"InferenceService {config.model_name} in namespace {config.namespace} has a predictor of another "
            f"kind ({', '.join(others)})",
            "delete it, or deploy under another serve.model_name",
        )


def _digest(service: Mapping[str, Any] | None) -> str:
    return str(((service or {}).get("metadata", {}).get("annotations") or {}).get(DIGEST_ANNOTATION, ""))


def _as_object(manifest: Mapping[str, Any]) -> Any:
    """The SDK wants its own class; it sends plain data inside it as they are."""
    from kserve import V1beta1InferenceService

    return V1beta1InferenceService(
        api_version=manifest["apiVersion"],
        kind=manifest["kind"],
        metadata=manifest["metadata"],
        spec=manifest["spec"],
    )
