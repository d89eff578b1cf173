"""Deployment to KServe: upload the model store, create or update the InferenceService, wait until it serves."""

from __future__ import annotations

import tempfile
import zipfile
from hashlib import sha256
from pathlib import Path
from typing import Any

from serving.kserve_cluster import connect
from serving.kserve_errors import cluster_errors
from serving.registry import Registry, describe_version
from serving.rollout import roll_out
from serving.storage import open_storage
from serving.upload import upload_store
from slicewise.config import ServeConfig
from slicewise.errors import BundleError
from slicewise.inference.bundle import META, load_bundle


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
        cluster = connect(config)
        existing = cluster.read()
        storage = open_storage(config)
        registry = Registry(storage, config.model_name)
        with registry.claim(), tempfile.TemporaryDirectory() as work:
            uri = upload_store(storage, verified, mar, config, Path(work))
            version = describe_version(verified, uri)
            registry.add(version)
            ready = roll_out(cluster, registry, version)
    return {
        "target": "kserve",
        "url": ready.url,
        "digest": verified.digest,
        "name": config.model_name,
        "namespace": config.namespace,
        "storage_uri": uri,
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
