"""A file behind an http(s) address, such as a store gives for a while; the address itself is a secret."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from slicewise.errors import SourceError
from slicewise.studies.sources.base import RemoteFile
from slicewise.studies.sources.remote import Remote
from slicewise.studies.sources.retry import ChangedError, TransientError

READ_BYTES = 1 << 16
BUSY = frozenset({408, 425, 429})


class HttpFile(Remote):
    """One file.

    Args:
        url: Its address; never shown, as it may be signed.
        file: Size, and the ETag as the server writes it (quotes included), by which parts are asked for.
        label: What messages call it.
        ranged: Whether the server gives parts.
        timeout_s: How long it may be silent.
    """

    def __init__(self, url: str, file: RemoteFile, label: str, *, ranged: bool, timeout_s: float) -> None:
        super().__init__(file, label, ranged=ranged)
        self._url = url
        self._timeout_s = timeout_s
        self._local = threading.local()

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield a range of the file; see ``Remote.read``."""
        import requests  # type: ignore[import-untyped,unused-ignore]

        headers = {"Accept-Encoding": "identity"}
        if self.ranged:
            headers |= {"Range": f"bytes={start}-{stop - 1}", "If-Match": self.file.etag}
        try:
            answer = self._session().get(self._url, headers=headers, stream=True, timeout=self._timeout_s)
            with closing(answer):
                self._require(answer.status_code)
                yield from answer.iter_content(READ_BYTES)
        # The messages of these errors hold the address, and so its signature.
        except requests.RequestException as error:
            raise TransientError(f"the connection failed ({type(error).__name__})") from None

    def again(self) -> HttpFile:
        """A new address has to be asked for."""
        raise SourceError(f"{self.label} has changed while it was fetched", "call the same command again")

    def _session(self) -> Any:
        """A session per thread: they are not made for several."""
        import requests

        if not hasattr(self._local, "session"):
            self._local.session = requests.Session()
        return self._local.session

    def _require(self, status: int) -> None:
        if status == (206 if self.ranged else 200):
            return
        if status in (200, 412, 416):
            raise ChangedError
        if status >= 500 or status in BUSY:
            raise TransientError(f"the server answered {status}")
        raise SourceError(f"{self.label}: the server answered {status}", "call the same command again")
