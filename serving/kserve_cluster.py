"""One InferenceService in a cluster, through the KServe SDK: read, create, change, put back, stop."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from serving.kserve_errors import cluster_errors, is_object_missing
from serving.kserve_manifest import DIGEST_ANNOTATION, changes
from slicewise.config import ServeConfig
from slicewise.errors import ServerError

GROUP = "serving.kserve.io"
STOP_ANNOTATION = "serving.kserve.io/stop"
ASK_S = 30
TRIES = 5
CONFLICT = 409
IMPLEMENTATIONS = frozenset(
    {"containers", "huggingface", "lightgbm", "onnx", "paddle", "pmml", "pytorch", "sklearn"}
    | {"tensorflow", "triton", "xgboost"}
)

log = logging.getLogger(__name__)


class Cluster:
    """An InferenceService by name; every method's errors are ServerErrors with a cure.

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
        with cluster_errors(config):
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
            if digest_of(found) not in (digest_of(before), digest_of(manifest)):
                raise ServerError(
                    f"another deployment of {self.config.model_name} was faster: it brought bundle "
                    f"{digest_of(found)[:12]}",
                    "see 'slicewise deploy --target kserve --status', then deploy again if yours should serve",
                )
            applied = self._try(manifest, found)
            if applied is not None:
                return int(applied["metadata"]["generation"])
            log.info("InferenceService %s was changed meanwhile: reading it again", self.config.model_name)
            found = self.read()
        raise ServerError(f"InferenceService {self.config.model_name} is changed all the time", "deploy again")

    def patch(self, body: Mapping[str, Any]) -> int:
        """A merge patch, whatever else has changed; null removes a field.

        Returns:
            The generation to wait for.
        """
        config, api = self.config, self.client.api_instance
        with cluster_errors(config):
            patched = api.patch_namespaced_custom_object(
                GROUP,
                "v1beta1",
                config.namespace,
                "inferenceservices",
                config.model_name,
                dict(body),
                _request_timeout=ASK_S,
            )
        return int(patched["metadata"]["generation"])

    def annotate(self, annotations: Mapping[str, str | None]) -> None:
        """Set annotations; None removes one."""
        self.patch({"metadata": {"annotations": dict(annotations)}})

    def stop(self) -> None:
        """Take its pods away where it is there; needs no right to delete."""
        if self.read() is not None:
            self.annotate({STOP_ANNOTATION: "true"})

    def restore(self, before: Mapping[str, Any] | None, failed_digest: str) -> None:
        """Put it back as it was before a model that failed, unless somebody else brought another one meanwhile.

        Args:
            before: The object as it was; None where there was none: then it is stopped.
            failed_digest: The bundle that is to go.
        """
        found = self.read()
        if found is None or digest_of(found) != failed_digest:
            return
        if before is None:
            self.stop()
            return
        log.warning("putting InferenceService %s back to bundle %s", self.config.model_name, digest_of(before)[:12])
        kept = before["metadata"].get("annotations") or {}
        annotations = difference(found["metadata"].get("annotations") or {}, kept)
        self.patch({"metadata": {"annotations": annotations}, "spec": difference(found["spec"], before["spec"])})

    def _try(self, manifest: Mapping[str, Any], found: Mapping[str, Any] | None) -> dict[str, Any] | None:
        """Create or patch; None when somebody was faster. The SDK wraps errors in RuntimeError."""
        name, namespace = self.config.model_name, self.config.namespace
        with cluster_errors(self.config):
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


def digest_of(service: Mapping[str, Any] | None) -> str:
    """The bundle that an InferenceService names; empty for none."""
    return str(((service or {}).get("metadata", {}).get("annotations") or {}).get(DIGEST_ANNOTATION, ""))


def difference(have: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The merge patch that makes ``wanted`` of ``have``."""
    patch: dict[str, Any] = {key: None for key in have if key not in wanted}
    for key, value in wanted.items():
        present = have.get(key)
        if isinstance(value, Mapping) and isinstance(present, Mapping):
            if inner := difference(present, value):
                patch[key] = inner
        elif value != present:
            patch[key] = value
    return patch


def _require_ours(found: Mapping[str, Any], config: ServeConfig) -> None:
    if others := sorted(IMPLEMENTATIONS & {key for key, value in found["spec"]["predictor"].items() if value}):
        raise ServerError(
            f"InferenceService {config.model_name} in namespace {config.namespace} has a predictor of another "
            f"kind ({', '.join(others)})",
            "delete it, or deploy under another serve.model_name",
        )


def _as_object(manifest: Mapping[str, Any]) -> Any:
    """The SDK wants its own class; it sends plain data inside it as they are."""
    from kserve import V1beta1InferenceService

    return V1beta1InferenceService(
        api_version=manifest["apiVersion"],
        kind=manifest["kind"],
        metadata=manifest["metadata"],
        spec=manifest["spec"],
    )
