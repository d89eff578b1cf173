"""Deployment to KServe: upload the model store, create or update the InferenceService, wait until it serves."""

from __future__ import annotations

import logging
import os
import zipfile
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from serving.kserve_errors import cluster_errors, is_object_missing
from serving.kserve_manifest import RUNTIME, changes, inference_service
from serving.kserve_ready import wait_ready
from serving.upload import upload_store
from slicewise.config import ServeConfig
from slicewise.errors import BundleError, ServerError
from slicewise.inference.bundle import META, load_bundle

GROUP = "serving.kserve.io"
ASK_S = 30
IMPLEMENTATIONS = frozenset(
    {"containers", "huggingface", "lightgbm", "onnx", "paddle", "pmml", "pytorch", "sklearn"}
    | {"tensorflow", "triton", "xgboost"}
)

log = logging.getLogger(__name__)


def deploy_inference_service(bundle: Path, mar: Path, config: ServeConfig) -> dict[str, Any]:
    """Bring a packaged model into the cluster.

    Args:
        bundle: The bundle folder.
        mar: The archive made of it.
        config: Name, namespace, storage, workers and limits.

    Returns:
        ``url``, ``target``, ``digest``, ``name``, ``namespace``, ``storage_uri``, ``created`` (false for an
        update) and ``verified`` (whether the service itself was asked and answered with this bundle's digest).

    Raises:
        BundleError: The bundle is damaged, or the archive was made of another one.
        ConfigError: ``serve.storage_uri`` cannot be used.
        ServerError: The storage or the cluster cannot be reached or refused, KServe or our ServingRuntime is
            not installed there, or the service was not ready in time.
    """
    verified = load_bundle(bundle)
    _check_archive(mar, verified.digest)
    with cluster_errors(config):
        # First of all: an unreachable cluster is better known before the upload than after it.
        client = _client()
        _require_runtime(client, config)
        existing = _existing(client, config)
        storage_uri = upload_store(verified, mar, config)
        manifest = inference_service(config, storage_uri, verified.digest)
        applied = _apply(client, config, manifest, existing)
        generation = int(applied["metadata"]["generation"])
        ready = wait_ready(lambda: _existing(client, config) or {}, generation, verified.digest, config)
    return {
        "target": "kserve",
        "url": ready.url,
        "digest": verified.digest,
        "name": config.model_name,
        "namespace": config.namespace,
        "storage_uri": storage_uri,
        "created": existing is None,
        "verified": ready.verified,
    }


def _check_archive(mar: Path, digest: str) -> None:
    """The archive holds ``bundle.json`` as it is: its SHA-256 is the bundle's digest."""
    try:
        with zipfile.ZipFile(mar) as archive:
            found = sha256(archive.read(META)).hexdigest()
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise BundleError(f"{mar} is no archive of a bundle: {error}", "package the model again") from error
    if found != digest:
        raise BundleError(f"{mar} was made of another bundle ({found[:12]}, not {digest[:12]})", "package it again")


def _client() -> Any:
    # Our module first: it keeps the SDK's hands off the command line.
    import serving.gateway.sdk  # noqa: F401
    from kserve import KServeClient  # isort: skip

    # The Kubernetes client reads KUBECONFIG on import only.
    return KServeClient(config_file=os.environ.get("KUBECONFIG") or None)


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


def _existing(client: Any, config: ServeConfig) -> dict[str, Any] | None:
    """The InferenceService in the cluster; None when there is none."""
    from kubernetes.client import ApiException

    try:
        found: dict[str, Any] = client.api_instance.get_namespaced_custom_object(
            GROUP, "v1beta1", config.namespace, "inferenceservices", config.model_name, _request_timeout=ASK_S
        )
    except ApiException as error:
        if error.status == 404 and is_object_missing(error):
            return None
        raise
    return found


def _apply(
    client: Any, config: ServeConfig, manifest: Mapping[str, Any], existing: Mapping[str, Any] | None
) -> dict[str, Any]:
    if existing is None:
        log.info("creating InferenceService %s in namespace %s", config.model_name, config.namespace)
        created: dict[str, Any] = client.create(_as_object(manifest), namespace=config.namespace)
        return created
    if others := sorted(IMPLEMENTATIONS & {key for key, value in existing["spec"]["predictor"].items() if value}):
        raise ServerError(
            f"InferenceService {config.model_name} in namespace {config.namespace} has a predictor of another "
            f"kind ({', '.join(others)})",
            "delete it, or deploy under another serve.model_name",
        )
    log.info("updating InferenceService %s in namespace %s", config.model_name, config.namespace)
    patch = _as_object(changes(existing, manifest))
    patched: dict[str, Any] = client.patch(config.model_name, patch, namespace=config.namespace)
    return patched


def _as_object(manifest: Mapping[str, Any]) -> Any:
    """The SDK wants its own class; it sends plain data inside it as they are."""
    from kserve import V1beta1InferenceService

    return V1beta1InferenceService(
        api_version=manifest["apiVersion"],
        kind=manifest["kind"],
        metadata=manifest["metadata"],
        spec=manifest["spec"],
    )
