"""Storage in a bucket of any S3 endpoint, by boto3's standard variables."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from slicewise.errors import ServerError
from slicewise.files import CHUNK_BYTES

CONNECT_S = 10
READ_S = 60
ATTEMPTS = 4
EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"})
DENIED = frozenset({"403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"})
ABSENT = frozenset({"404", "NoSuchKey", "NotFound"})
TAKEN = frozenset({"412", "PreconditionFailed", "409", "ConditionalRequestConflict"})
FULL = frozenset({"QuotaExceeded", "XMinioStorageFull", "EntityTooLarge", "507"})

log = logging.getLogger(__name__)


class S3Storage:
    """Objects below a prefix of a bucket.

    Args:
        bucket: The bucket.
        prefix: The keys' common beginning, without slashes at its ends; may be empty.
    """

    def __init__(self, bucket: str, prefix: str) -> None:
        self.bucket = bucket
        self.prefix = prefix
        self.uri = f"s3://{bucket}/{prefix}".rstrip("/")
        with self._named_errors():
            self._client = _client()

    def key(self, name: str) -> str:
        """The key of one object."""
        return f"{self.prefix}/{name}" if self.prefix else name

    def read(self, name: str) -> tuple[bytes, str] | None:
        """Content and ETag."""
        with self._named_errors():
            found = self._get(name)
            return (found["Body"].read(), found["ETag"]) if found else None

    def swap(self, name: str, body: bytes, tag: str | None) -> bool:
        """A conditional write."""
        from botocore.exceptions import ClientError

        condition = {"IfNoneMatch": "*"} if tag is None else {"IfMatch": tag}
        with self._named_errors():
            try:
                self._client.put_object(Bucket=self.bucket, Key=self.key(name), Body=body, **condition)
            except ClientError as error:
                if error.response["Error"]["Code"] in TAKEN:
                    return False
                raise
            return True

    def write(self, name: str, body: bytes) -> None:
        """Write in one request."""
        with self._named_errors():
            self._client.put_object(Bucket=self.bucket, Key=self.key(name), Body=body)

    def upload(self, source: Path, name: str) -> None:
        """Write in several parts where it is large."""
        with self._named_errors():
            self._client.upload_file(str(source), self.bucket, self.key(name))

    def sha256(self, name: str) -> str | None:
        """Read back and digest, in bounded memory."""
        with self._named_errors():
            found = self._get(name)
            if found is None:
                return None
            digest = sha256()
            for chunk in found["Body"].iter_chunks(CHUNK_BYTES):
                digest.update(chunk)
            return digest.hexdigest()

    def move(self, source: str, target: str) -> None:
        """Copy inside the storage, then remove; S3 has no rename."""
        with self._named_errors():
            origin = {"Bucket": self.bucket, "Key": self.key(source)}
            self._client.copy(origin, self.bucket, self.key(target))
            self._client.delete_object(Bucket=self.bucket, Key=self.key(source))

    def remove(self, prefix: str) -> None:
        """Remove page by page, with what killed uploads have left in parts, which nobody sees but everybody pays."""
        place = {"Bucket": self.bucket, "Prefix": f"{self.key(prefix)}/"}
        with self._named_errors():
            for page in self._client.get_paginator("list_objects_v2").paginate(**place):
                for item in page.get("Contents", []):
                    self._client.delete_object(Bucket=self.bucket, Key=item["Key"])
            self._abort_parts(place)

    def _abort_parts(self, place: dict[str, str]) -> None:
        from botocore.exceptions import ClientError

        try:
            for page in self._client.get_paginator("list_multipart_uploads").paginate(**place):
                for item in page.get("Uploads", []):
                    found = {"Bucket": self.bucket, "Key": item["Key"], "UploadId": item["UploadId"]}
                    self._client.abort_multipart_upload(**found)
        except ClientError as error:
            # Not every storage can list them, nor every key: the bucket's own rules must do then.
            log.info("unfinished uploads of %s are not looked for: %s", self.uri, error.response["Error"]["Code"])

    def _get(self, name: str) -> dict[str, Any] | None:
        from botocore.exceptions import ClientError

        try:
            found: dict[str, Any] = self._client.get_object(Bucket=self.bucket, Key=self.key(name))
        except ClientError as error:
            if error.response["Error"]["Code"] in ABSENT:
                return None
            raise
        return found

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        """boto3's errors as ours, with what to do about them."""
        from boto3.exceptions import S3UploadFailedError
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

        place = f"s3://{self.bucket}"
        try:
            yield
        except NoCredentialsError as error:
            cure = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the pod a role"
            raise ServerError(f"no credentials for {place}", cure) from error
        except ClientError as error:
            raise _refused(place, error.response["Error"]) from error
        except S3UploadFailedError as error:
            inner = error.__context__
            if isinstance(inner, ClientError):
                raise _refused(place, inner.response["Error"]) from error
            raise ServerError(f"the upload to {self.uri} failed: {error}", "deploy again") from error
        except BotoCoreError as error:
            cure = "check the network, AWS_ENDPOINT_URL_S3 and AWS_REGION"
            raise ServerError(f"{place} cannot be reached: {error}", cure) from error


def _client() -> Any:
    import boto3
    from botocore.config import Config

    retries = {"max_attempts": ATTEMPTS, "mode": "standard"}
    settings = Config(connect_timeout=CONNECT_S, read_timeout=READ_S, retries=retries)
    # A session of its own: the default one remembers the first credentials it saw.
    return boto3.session.Session().client("s3", config=settings)


def _refused(place: str, told: dict[str, str]) -> ServerError:
    code = told.get("Code", "")
    if code == "NoSuchBucket":
        return ServerError(f"there is no bucket {place}", "make it, or correct serve.storage_uri")
    if code in EXPIRED:
        return ServerError(f"the credentials for {place} have expired", "log in again, or renew AWS_SESSION_TOKEN")
    if code in DENIED:
        return ServerError(f"{place} refused access ({code})", "check the key, and that it may read and write there")
    if code in FULL:
        return ServerError(f"{place} has no room left ({code})", "remove old versions, or raise the quota")
    return ServerError(f"{place} refused: {code} {told.get('Message', '')}".strip(), "see the storage's own log")
