"""Talking to an S3 server with boto3: the client, its errors in words that help, and one object's bytes."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from slicewise.config import DownloadConfig
from slicewise.config.download import S3Config
from slicewise.errors import SourceError
from slicewise.studies.sources.base import RemoteFile
from slicewise.studies.sources.remote import Remote
from slicewise.studies.sources.retry import TransientError, retried
from slicewise.studies.sources.s3_errors import NotGivenError, failure, refusal

logger = logging.getLogger(__name__)

T = TypeVar("T")
READ_BYTES = 1 << 18
MD5 = re.compile(r"^[0-9a-f]{32}$")
ENDPOINT_VARIABLES = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")


@dataclass(frozen=True)
class Bucket:
    """A bucket on a server, ready to be read.

    Attributes:
        name: The bucket.
        client: boto3's.
        signed: Whether requests carry credentials.
        endpoint: The server, for messages.
        config: Retries and timeouts.
    """

    name: str
    client: Any
    signed: bool
    endpoint: str
    config: DownloadConfig

    def call(self, what: str, request: Callable[[], T]) -> T:
        """Call with repetitions.

        Args:
            what: The address, for messages.
            request: One call of the client.

        Raises:
            SourceError: Refused, or failed too often.
        """
        return retried(lambda: self.attempt(what, request), self.config, f"reading {what}")

    def attempt(self, what: str, request: Callable[[], T]) -> T:
        """Call once.

        Raises:
            TransientError: It may go better next time.
            ChangedError: The object is another one by now.
            SourceError: Refused.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return request()
        except ClientError as error:
            raise refusal(self, what, error) from error
        except BotoCoreError as error:
            raise failure(self, what, error) from error

    def head(self, key: str) -> RemoteFile | None:
        """One object, or None where there is none, or none that may be read."""
        what = f"s3://{self.name}/{key}"
        try:
            answer = self.call(what, lambda: self.client.head_object(Bucket=self.name, Key=key))
        except NotGivenError:
            return None
        return RemoteFile(key, int(answer["ContentLength"]), str(answer["ETag"]).strip('"'))

    def list(self, prefix: str) -> Iterator[RemoteFile]:
        """All objects below a prefix, their keys as they are."""
        request = {"Bucket": self.name, "Prefix": prefix}
        what = f"s3://{self.name}/{prefix}".rstrip("/")
        while True:
            page = self.call(what, lambda: self.client.list_objects_v2(**request))
            for entry in page.get("Contents", ()):
                yield RemoteFile(entry["Key"], int(entry["Size"]), str(entry["ETag"]).strip('"'))
            if not page.get("IsTruncated"):
                return
            request["ContinuationToken"] = page["NextContinuationToken"]


class S3Object(Remote):
    """One object, its bytes asked for under the condition that it is still the same."""

    def __init__(self, bucket: Bucket, key: str, file: RemoteFile) -> None:
        super().__init__(file, f"s3://{bucket.name}/{key}")
        self._bucket = bucket
        self._key = key
        self._plain = True

    @property
    def md5(self) -> str | None:
        """The ETag, where it is an MD5: not for objects uploaded by parts or encrypted with a key of their own."""
        return self.file.etag if self._plain and MD5.match(self.file.etag) else None

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield a range of the object; see ``Remote.read``."""
        from botocore.exceptions import BotoCoreError

        answer = self._bucket.attempt(self.label, lambda: self._get(start, stop))
        if answer.get("SSECustomerAlgorithm") or "kms" in str(answer.get("ServerSideEncryption", "")):
            self._plain = False
        body = answer["Body"]
        try:
            yield from iter(lambda: self._bucket.attempt(self.label, lambda: body.read(READ_BYTES)), b"")
        except (OSError, BotoCoreError) as error:
            raise TransientError(f"the connection failed ({type(error).__name__})") from error
        finally:
            body.close()

    def again(self) -> S3Object:
        """The object as it is now."""
        found = self._bucket.head(self._key)
        if found is None:
            raise SourceError(f"{self.label} was removed while it was fetched", "call the same command again")
        return S3Object(self._bucket, self._key, RemoteFile(self.file.path, found.bytes, found.etag))

    def _get(self, start: int, stop: int) -> Any:
        wanted = {"Bucket": self._bucket.name, "Key": self._key, "Range": f"bytes={start}-{stop - 1}"}
        if self.file.etag:
            wanted["IfMatch"] = f'"{self.file.etag}"'
        return self._bucket.client.get_object(**wanted)


def open_bucket(name: str, s3: S3Config, config: DownloadConfig) -> Bucket:
    """A client for one bucket; no request is made yet.

    Raises:
        SourceError: boto3 is missing, or its configuration is wrong.
    """
    try:
        import boto3
        from botocore import UNSIGNED
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError as error:
        raise SourceError("s3:// sources need boto3", "pip install 'slicewise[sources]'") from error
    if s3.endpoint_url and (not s3.endpoint_url.startswith(("http://", "https://")) or "@" in s3.endpoint_url):
        # Not told what it is: it may hold a password.
        cure = "write it as http://host:port, and give credentials in the environment"
        raise SourceError("download.s3.endpoint_url is no http(s) address without a user", cure)
    try:
        session = boto3.Session(region_name=s3.region)
        signed = session.get_credentials() is not None if s3.anonymous == "auto" else not s3.anonymous
        other = s3.endpoint_url or any(name in os.environ for name in ENDPOINT_VARIABLES)
        addressing = "path" if s3.addressing == "auto" and other else s3.addressing
        options = {
            "connect_timeout": min(10.0, config.timeout_s),
            "read_timeout": config.timeout_s,
            "max_pool_connections": config.workers + 1,
            # Repetitions are ours: they also cover a body that breaks off.
            "retries": {"total_max_attempts": 1, "mode": "standard"},
            "s3": {"addressing_style": addressing},
        }
        if not signed:
            options["signature_version"] = UNSIGNED
        client = session.client("s3", endpoint_url=s3.endpoint_url, config=Config(**options))
    except (BotoCoreError, ValueError) as error:
        raise SourceError(f"s3://{name}: {error}", "check download.s3, AWS_PROFILE and ~/.aws") from error
    logger.info("s3://%s: %s requests", name, "signed" if signed else "anonymous")
    return Bucket(name, client, signed, _without_password(client.meta.endpoint_url), config)


def _without_password(url: str) -> str:
    return re.sub(r"//[^/@]*@", "//", url)
