"""The official Kaggle client, kept from ending the process, writing to stdout and telling secrets."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slicewise.config import DownloadConfig
from slicewise.errors import SourceError
from slicewise.studies.sources.base import RemoteFile
from slicewise.studies.sources.http import HttpFile
from slicewise.studies.sources.retry import TransientError, retried

SIGN_IN = (
    "make a token at https://www.kaggle.com/settings/api, then put it in KAGGLE_API_TOKEN or ~/.kaggle/access_token "
    "(or a legacy key in KAGGLE_USERNAME and KAGGLE_KEY or ~/.kaggle/kaggle.json), or call: kaggle auth login"
)


@dataclass(frozen=True)
class Located:
    """Where a data set's zip archive can be fetched from, for a while."""

    url: str
    bytes: int
    etag: str
    ranged: bool


def locate(dataset: str, folder: Path, config: DownloadConfig) -> Located:
    """Ask Kaggle for a data set's archive.

    The client signs in and asks; the bytes are then fetched by ``transfer``, as everything else is: the client
    has one connection and no look at the disk.

    Args:
        dataset: ``owner/name``.
        folder: For the client, which makes folders of what it is about to write; it writes nothing.
        config: Retries.

    Raises:
        SourceError: The client is missing, nobody is signed in, or Kaggle refuses.
    """
    return retried(lambda: _ask(dataset, folder), config, f"asking Kaggle for {dataset}")


def as_remote(located: Located, path: str, label: str, config: DownloadConfig) -> HttpFile:
    """The archive as something to fetch."""
    file = RemoteFile(path, located.bytes, located.etag)
    return HttpFile(located.url, file, label, ranged=located.ranged, timeout_s=config.timeout_s)


def _ask(dataset: str, folder: Path) -> Located:
    with _contained(dataset):
        from kaggle.api.kaggle_api_extended import KaggleApi

        found: list[Located] = []

        class Client(KaggleApi):  # type: ignore[misc]
            """The client, up to the answer that holds the archive."""

            def download_file(self, response: Any, outfile: str, *_: Any, **__: Any) -> None:
                """Take the address instead of the bytes."""
                found.append(_located(response, dataset))

        client = Client()
        client.authenticate()
        client.dataset_download_files(dataset, path=str(folder), force=True, quiet=True)
    if not found:
        raise SourceError(f"the Kaggle client gave no address for {dataset}", "pip install -U 'slicewise[sources]'")
    return found[0]


def _located(response: Any, dataset: str) -> Located:
    headers = response.headers
    response.close()
    if not str(headers.get("Content-Length", "")).isdigit():
        raise SourceError(f"Kaggle does not tell the size of {dataset}", "download it in the browser, give the zip")
    etag = str(headers.get("ETag", ""))
    # A weak ETag names no bytes; without a strong one, parts of two states might be put together.
    strong = etag if etag and not etag.startswith("W/") else ""
    ranged = bool(strong) and headers.get("Accept-Ranges") == "bytes"
    return Located(str(response.url), int(headers["Content-Length"]), strong, ranged)


@contextlib.contextmanager
def _contained(dataset: str) -> Iterator[None]:
    """Turn whatever the client does on failure, ``exit()`` included, into an error that helps.

    What it prints is thrown away: told to be verbose, it prints the credentials.
    """
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    except ImportError as error:
        raise SourceError("the source kaggle needs the Kaggle client", "pip install 'slicewise[sources]'") from error
    except SystemExit:
        raise SourceError(f"nobody is signed in to Kaggle, so {dataset} cannot be fetched", SIGN_IN) from None
    except OSError as error:
        raise _refusal(dataset, error) from None
    except ValueError as error:
        raise SourceError(f"Kaggle: {dataset}: {error}", "write it as kaggle:owner/name") from None


def _refusal(dataset: str, error: OSError) -> Exception:
    """``requests`` errors are OSErrors; their texts hold addresses, so only their kind is told."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status == 401:
        return SourceError(f"Kaggle does not accept the credentials (asked for {dataset})", SIGN_IN)
    if status == 403:
        page = f"https://www.kaggle.com/datasets/{dataset}"
        return SourceError(f"Kaggle does not give {dataset} to this account", f"accept its terms at {page}")
    if status == 404:
        return SourceError(f"Kaggle has no data set {dataset}", "write it as kaggle:owner/name, as in its address")
    if status is None and "kaggle.json" in str(error):
        # Older clients raise this instead of ending the process.
        return SourceError(f"nobody is signed in to Kaggle, so {dataset} cannot be fetched", SIGN_IN)
    if status is not None and status < 500 and status != 429:
        return SourceError(f"Kaggle answered {status} for {dataset}", "try again later")
    return TransientError(f"Kaggle cannot be reached ({status or type(error).__name__})")
