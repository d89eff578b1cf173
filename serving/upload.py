"""The model store of one version: TorchServe's own layout, complete or not there at all.

Under ``<storage_uri>/<version>-<digest12>/``, which the cluster reads::

    config/config.properties
    model-store/<model_name>.mar
    manifest.json                 sizes and SHA-256 of the two and of the bundle's files, written last

and under ``<storage_uri>/bundles/<version>-<digest12>/`` the bundle, for people and for other tools.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path, PurePosixPath
from typing import Any

from serving.ledger import version_name
from serving.storage import Storage
from serving.torchserve.properties import ServerPorts, server_properties
from slicewise.config import ServeConfig
from slicewise.errors import ServerError
from slicewise.files import atomic_path, sha256_file
from slicewise.inference.bundle import Bundle

MANIFEST = "manifest.json"
PROPERTIES = "config/config.properties"
STORE = "model-store"
BUNDLES = "bundles"
INCOMING = "incoming"
MODELS = PurePosixPath("/mnt/models")
ANY_HOST = "0.0.0.0"
# The ports of the runtime's image; the inference port is the one that the ServingRuntime declares.
POD_PORTS = ServerPorts(inference=8085, management=8086, metrics=8082, grpc_inference=7070, grpc_management=7071)

log = logging.getLogger(__name__)


def upload_store(storage: Storage, bundle: Bundle, archive: Path, config: ServeConfig, work: Path) -> str:
    """Upload bundle and model store unless this very version is there already and whole.

    Everything goes under a temporary name first, is read back and compared, and takes its place then; what a killed
    upload has left there is removed first. Files that are right already stay untouched: somebody may be reading them.

    Args:
        storage: Where to.
        bundle: The verified bundle that the archive was made of.
        archive: The ``.mar`` file.
        config: ``model_name``, workers and limits.
        work: A folder for a small temporary file.

    Returns:
        The URI to put into the InferenceService.

    Raises:
        ServerError: The storage cannot be reached, refused, or holds something else than was sent.
    """
    version = version_name(bundle.meta.model_version, bundle.digest)
    sources = _sources(bundle, archive, config, version, work)
    digests = {name: sha256_file(path) for name, path in sources.items()}
    manifest = _manifest(bundle, config, sources, digests, version)
    uri = f"{storage.uri}/{version}"
    found = storage.read(f"{version}/{MANIFEST}")
    incoming = f"{INCOMING}/{config.model_name}"
    storage.remove(incoming)
    wrong = wrong_files(storage, digests)
    if found and found[0] == manifest and not wrong:
        log.info("%s is complete already", uri)
        return uri
    missing = {name: sources[name] for name in wrong}
    log.info("uploading %.1f MB to %s", sum(path.stat().st_size for path in missing.values()) / 2**20, uri)
    try:
        _transfer(storage, missing, digests, incoming)
    finally:
        _clear(storage, incoming)
    # Last: whoever sees the manifest may rely on all the rest.
    storage.write(f"{version}/{MANIFEST}", manifest)
    return uri


def _clear(storage: Storage, incoming: str) -> None:
    try:
        storage.remove(incoming)
    except ServerError as error:
        # Whatever went wrong before is the news; the next upload removes it.
        log.warning("%s/%s is left over: %s", storage.uri, incoming, error)


def wrong_files(storage: Storage, digests: dict[str, str]) -> list[str]:
    """The names whose stored content is missing or another than its SHA-256 says."""
    return [name for name, digest in digests.items() if storage.sha256(name) != digest]


def check_store(storage: Storage, version: str) -> None:
    """Verify a stored version before anybody is sent to it.

    Raises:
        ServerError: Missing, half there, or damaged.
    """
    found = storage.read(f"{version}/{MANIFEST}")
    if found is None:
        raise ServerError(f"{storage.uri}/{version} is not complete: no {MANIFEST}", "deploy this version again")
    files = json.loads(found[0])["files"]
    if wrong := wrong_files(storage, {f"{version}/{name}": entry["sha256"] for name, entry in files.items()}):
        raise ServerError(f"{storage.uri}/{wrong[0]} is damaged or missing", "deploy this version again")


def _sources(bundle: Bundle, archive: Path, config: ServeConfig, version: str, work: Path) -> dict[str, Path]:
    """The files to store, by name."""
    in_pod = Path(MODELS / STORE / f"{config.model_name}.mar")
    properties = work / "config.properties"
    with atomic_path(properties) as temporary:
        temporary.write_bytes(server_properties(POD_PORTS, in_pod, config, ANY_HOST).encode())
    parts = {f"{BUNDLES}/{version}/{path.name}": path for path in sorted(bundle.folder.iterdir()) if path.is_file()}
    own = {f"{version}/{PROPERTIES}": properties, f"{version}/{STORE}/{config.model_name}.mar": archive}
    return parts | own


def _transfer(storage: Storage, sources: dict[str, Path], digests: dict[str, str], incoming: str) -> None:
    for name, path in sources.items():
        storage.upload(path, f"{incoming}/{name}")
    sent = {f"{incoming}/{name}": digests[name] for name in sources}
    if wrong := wrong_files(storage, sent):
        name = wrong[0].removeprefix(f"{incoming}/")
        raise ServerError(f"{storage.uri} holds another {name} than was sent", "deploy again")
    for name in sources:
        storage.move(f"{incoming}/{name}", name)


def _manifest(
    bundle: Bundle, config: ServeConfig, sources: dict[str, Path], digests: dict[str, str], version: str
) -> bytes:
    own = {name: path for name, path in sources.items() if name.startswith(f"{version}/")}
    files: dict[str, Any] = {
        name.removeprefix(f"{version}/"): {"bytes": path.stat().st_size, "sha256": digests[name]}
        for name, path in own.items()
    }
    value = {
        "format": "slicewise-model-store",
        "model_name": config.model_name,
        "model_version": bundle.meta.model_version,
        "bundle_digest": bundle.digest,
        "settings": config.model_dump(mode="json", include={"workers", "max_request_mb", "timeout_s"}),
        "files": files,
    }
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()
