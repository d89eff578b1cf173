"""What an S3 server refuses, in words that help."""

from __future__ import annotations

from typing import Any, Protocol

from slicewise.errors import SourceError
from slicewise.studies.sources.retry import ChangedError, TransientError

SIGN_IN = "give credentials (AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or ~/.aws)"
PUBLIC = "for a public bucket set download.s3.anonymous=true"
# Passing troubles by the server's code; others count as passing by their HTTP status.
BUSY = frozenset({"SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout", "Throttling", "503", "500"})


class Asked(Protocol):
    """The bucket that was asked: its name, whether requests were signed, and the server."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def signed(self) -> bool: ...  # noqa: D102
    @property
    def endpoint(self) -> str: ...  # noqa: D102


class NotGivenError(SourceError):
    """There is no such object, or not for us; servers tell the two apart only to those who may list."""


def refusal(bucket: Asked, what: str, error: Any) -> Exception:
    """What to raise for an answer that is an error (botocore's ``ClientError``)."""
    detail = error.response.get("Error", {})
    meta = error.response.get("ResponseMetadata", {})
    code, status = str(detail.get("Code", "")), int(meta.get("HTTPStatusCode", 0))
    if code == "PreconditionFailed" or status in (412, 416):
        return ChangedError()
    if code in BUSY or status >= 500 or status == 429:
        return TransientError(f"the server answered {status} {code}")
    if code == "NoSuchBucket":
        return SourceError(
            f"there is no bucket {bucket.name!r} at {bucket.endpoint}", "check the name and the server"
        )
    if status == 404:
        return NotGivenError(f"there is nothing at {what}", "list it with: aws s3 ls, and correct the address")
    region = detail.get("Region") or meta.get("HTTPHeaders", {}).get("x-amz-bucket-region")
    if status in (301, 307, 400) and region:
        return SourceError(f"{what} lies in the region {region}", f"set download.s3.region={region}")
    if code == "InvalidObjectState":
        return SourceError(f"{what} is archived (Glacier)", "restore the object first")
    if status in (400, 401, 403):
        return _forbidden(bucket, what, code)
    return SourceError(f"{bucket.endpoint} refused {what}: {status} {code}", "check the address and the server")


def _forbidden(bucket: Asked, what: str, code: str) -> SourceError:
    if not bucket.signed:
        return NotGivenError(f"{what} is not there or not public ({code or 403})", SIGN_IN)
    if code in ("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"):
        message = f"{bucket.endpoint} does not accept the credentials ({code})"
        return SourceError(message, f"{SIGN_IN}; {PUBLIC}")
    cure = f"ask for s3:ListBucket and s3:GetObject on this bucket; {PUBLIC}"
    return NotGivenError(f"the credentials may not read {what} ({code or 403})", cure)


def failure(bucket: Asked, what: str, error: Any) -> Exception:
    """What to raise where no proper answer came (botocore's ``BotoCoreError``)."""
    from botocore import exceptions as known

    if isinstance(error, known.NoCredentialsError | known.PartialCredentialsError | known.CredentialRetrievalError):
        return SourceError(f"no complete credentials for {what}", f"{SIGN_IN}; {PUBLIC}")
    if isinstance(error, known.SSLError):
        return SourceError(f"{bucket.endpoint}: no trusted encrypted connection", "set AWS_CA_BUNDLE, or use http://")
    if isinstance(error, known.ConnectionError):
        return TransientError(f"{bucket.endpoint} cannot be reached ({type(error).__name__})")
    if isinstance(error, known.HTTPClientError | known.IncompleteReadError):
        return TransientError(f"the connection to {bucket.endpoint} failed ({type(error).__name__})")
    return SourceError(f"{what}: {error}", "check the address and download.s3")
