"""The model store in S3: TorchServe's own layout, complete or not there at all.

Under ``<storage_uri>/<version>-<digest12>/``::

    config/config.properties
    model-store/<model_name>.mar
    manifest.json                 sizes and SHA-256 of the two, written last
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from serving.torchserve.properties import ServerPorts, server_properties
from slicewise.config import ServeConfig
from slicewise.errors import ConfigError, ServerError
from slicewise.files import sha256_file
from slicewise.inference.bundle import Bundle

MANIFEST = "manifest.json"
PROPERTIES = "config/config.properties"
STORE = "model-store"
MODELS = PurePosixPath("/mnt/models")
ANY_HOST = "0.0.0.0"
# The ports of the runtime's image; the inference port is the one that the ServingRuntime declares.
POD_PORTS = ServerPorts(inference=8085, management=8086, metrics=8082, grpc_inference=7070, grpc_management=7071)
CONNECT_S = 10
READ_S = 60
ATTEMPTS = 4
DENIED = frozenset({"403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"})
ABSENT = frozenset({"404", "NoSuchKey", "NotFound"})

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoreAddress:
    """Where one version of a model lies.

    Attributes:
        bucket: The bucket.
        prefix: The keys' common beginning, without a slash at its end.
    """

    bucket: str
    prefix: str

    @property
    def uri(self) -> str:
        """``s3://bucket/prefix``, as the InferenceService names it."""
        return f"s3://{self.bucket}/{self.prefix}"

    def key(self, name: str) -> str:
        """The key of one file."""
        return f"{self.prefix}/{name}"


def store_address(storage_uri: str, version: str, digest: str) -> StoreAddress:
    """The place of one version below ``storage_uri``.

    Raises:
        ConfigError: Empty, not ``s3://``, or without a bucket.
    """
    cure = "set serve.storage_uri to s3://BUCKET/PREFIX, e.g. --set serve.storage_uri=s3://models/slicewise"
    if not storage_uri:
        raise ConfigError("serve.storage_uri is empty: the cluster has nowhere to read the model from", cure)
    parts = urlsplit(storage_uri)
    if parts.scheme != "s3" or not parts.netloc:
        raise ConfigError(f"serve.storage_uri: {storage_uri!r} is not s3://BUCKET/PREFIX", cure)
    folder = f"{version}-{digest[:12]}"
    return StoreAddress(parts.netloc, "/".join(word for word in (*parts.path.split("/"), folder) if word))


def upload_store(bundle: Bundle, archive: Path, config: ServeConfig) -> str:
    """Upload the model store unless this very version is there already.

    Args:
        bundle: The verified bundle that the archive was made of.
        archive: The ``.mar`` file.
        config: ``storage_uri``, ``model_name``, workers and limits.

    Returns:
        The ``s3://`` URI to put into the InferenceService.

    Raises:
        ConfigError: ``storage_uri`` cannot be used.
        ServerError: The storage cannot be reached, refused, or holds something else than was sent.
    """
    address = store_address(config.storage_uri, bundle.meta.model_version, bundle.digest)
    in_pod = Path(MODELS / STORE / f"{config.model_name}.mar")
    properties = server_properties(POD_PORTS, in_pod, config, ANY_HOST).encode()
    manifest = _manifest(bundle, archive, config)
    with _named_errors(address):
        client = _client()
        if _read(client, address.bucket, address.key(MANIFEST)) == manifest:
            log.info("%s is complete already", address.uri)
            return address.uri
        log.info("uploading %.1f MB to %s", archive.stat().st_size / 2**20, address.uri)
        client.put_object(Bucket=address.bucket, Key=address.key(PROPERTIES), Body=properties)
        key = address.key(f"{STORE}/{config.model_name}.mar")
        client.upload_file(str(archive), address.bucket, key)
        stored = client.head_object(Bucket=address.bucket, Key=key)["ContentLength"]
        if stored != archive.stat().st_size:
            raise ServerError(f"s3://{address.bucket}/{key} holds {stored} bytes of {archive.name}", "deploy again")
        # Last: whoever sees the manifest may rely on all the rest.
        client.put_object(Bucket=address.bucket, Key=address.key(MANIFEST), Body=manifest)
    return address.uri


def _manifest(bundle: Bundle, archive: Path, config: ServeConfig) -> bytes:
    archived = {"bytes": archive.stat().st_size, "sha256": sha256_file(archive)}
    value = {
        "format": "slicewise-model-store",
        "model_name": config.model_name,
        "model_version": bundle.meta.model_version,
        "bundle_digest": bundle.digest,
        "settings": config.model_dump(mode="json", include={"workers", "max_request_mb", "timeout_s"}),
        "files": {f"{STORE}/{config.model_name}.mar": archived},
    }
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()


def _client() -> Any:
    """An S3 client by boto3's standard variables: ``AWS_ACCESS_KEY_ID``, ``AWS_ENDPOINT_URL_S3`` and so on."""
    import boto3
    from botocore.config import Config

    retries = {"max_attempts": ATTEMPTS, "mode": "standard"}
    settings = Config(connect_timeout=CONNECT_S, read_timeout=READ_S, retries=retries)
    # A session of its own: the default one remembers the first credentials it saw.
    return boto3.session.Session().client("s3", config=settings)


def _read(client: Any, bucket: str, key: str) -> bytes | None:
    """An object's content; None when there is no such object."""
    from botocore.exceptions import ClientError

    try:
        content: bytes = client.get_object(Bucket=bucket, Key=key)["Body"].read()
    except ClientError as error:
        if error.response["Error"]["Code"] in ABSENT:
            return None
        raise
    return content


@contextmanager
def _named_errors(address: StoreAddress) -> Iterator[None]:
    """boto3's errors as ours, with what to do about them."""
    from boto3.exceptions import S3UploadFailedError
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    place = f"s3://{address.bucket}"
    try:
        yield
    except NoCredentialsError as error:
        cure = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the pod a role"
        raise ServerError(f"no credentials for {place}", cure) from error
    except ClientError as error:
        raise _refused(place, error.response["Error"]) from error
    except S3UploadFailedError as error:
        raise ServerError(f"the upload to {address.uri} failed: {error}", "deploy again") from error
    except BotoCoreError as error:
        cure = "check the network, AWS_ENDPOINT_URL_S3 and AWS_REGION"
        raise ServerError(f"{place} cannot be reached: {error}", cure) from error


def _refused(place: str, told: dict[str, str]) -> ServerError:
    code = told.get("Code", "")
    if code == "NoSuchBucket":
        return ServerError(f"there is no bucket {place}", "make it, or correct serve.storage_uri")
    if code in DENIED:
        return ServerError(f"{place} refused access ({code})", "check the key, and that it may read and write there")
    return ServerError(f"{place} refused: {code} {told.get('Message', '')}".strip(), "see the storage's own log")
