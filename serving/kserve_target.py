"""Deployment into a cluster: upload, create or update the InferenceService, wait, compare, verify."""

from __future__ import annotations

import tempfile
import zipfile
from hashlib import sha256
from pathlib import Path
from typing import Any

from serving.kserve_connect import connect
from serving.ledger import describe_version
from serving.orderly import orderly_end
from serving.registry import Registry
from serving.registry_kubeflow import mirror_of
from serving.rollout import roll_out
from serving.storage import open_storage
from serving.upload import upload_store
from slicewise.config import ServeConfig
from slicewise.errors import BundleError
from slicewise.inference.bundle import META, Bundle, load_bundle


def deploy_inference_service(bundle: Path, mar: Path, config: ServeConfig) -> dict[str, Any]:
    """Bring a packaged model into the cluster.

    Args:
        bundle: The bundle folder.
        mar: The archive made of it.
        config: Name, namespace, storage and limits.

    Returns:
        ``target``, ``url``, ``digest``, ``version``, ``registry_state`` (``serving``, or ``candidate`` where the
        canary passed and waits), ``name``, ``namespace``, ``storage_uri``, ``created`` (rather than updated) and
        ``verified`` (the service was asked, answered with this bundle's digest, and classified and segmented).

    Raises:
        ConfigError: ``serve.storage_uri`` is missing or of an unknown kind.
        BundleError: The bundle is damaged, the archive was made of another one, or the gate refused the model.
        ServerError: The cluster or the storage cannot be reached or refused, or the model did not get ready in time
            or failed its canary; what served before serves as before.
    """
    verified = load_bundle(bundle)
    _check_archive(mar, verified.digest)
    _check_gate(verified, config)
    storage = open_storage(config)
    # Before the upload: an unreachable cluster is better known first.
    cluster = connect(config)
    created = cluster.read() is None
    registry = Registry(storage, config.model_name, mirror_of(config))
    with orderly_end(), registry.claim(), tempfile.TemporaryDirectory() as work:
        uri = upload_store(storage, verified, mar, config, Path(work))
        version = describe_version(verified, uri)
        ready = roll_out(cluster, registry, version)
        state = registry.read().named(version.name).state
    return {
        "target": "kserve",
        "url": ready.url,
        "digest": verified.digest,
        "version": version.name,
        "registry_state": state,
        "name": config.model_name,
        "namespace": config.namespace,
        "storage_uri": uri,
        "created": created,
        "verified": ready.verified,
    }


def _check_archive(mar: Path, digest: str) -> None:
    """See that an archive holds the bundle of this digest, and not that of a run before."""
    try:
        with zipfile.ZipFile(mar) as archive:
            found = sha256(archive.read(META)).hexdigest()
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise BundleError(f"{mar} is no archive of a bundle: {error}", "package the model again") from error
    if found != digest:
        raise BundleError(f"{mar} was made of another bundle ({found[:12]}, not {digest[:12]})", "package it again")


def _check_gate(bundle: Bundle, config: ServeConfig) -> None:
    gate = bundle.meta.metrics.get("gate") or {}
    if config.require_gate and gate.get("passed") is False:
        reasons = "; ".join(gate.get("reasons") or ["no reason given"])
        cure = "train a better model, or deploy it all the same with --set serve.require_gate=false"
        raise BundleError(f"the gate refused this model: {reasons}", cure)
