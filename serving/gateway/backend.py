"""What the gateway asks of a model server, wherever it runs."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from serving.codecs import v2
from slicewise.errors import TooLargeError


@dataclass(frozen=True)
class RawAnswer:
    """A successful answer as it came.

    Attributes:
        content: The body.
        headers: ``content-type``, and ``Inference-Header-Content-Length`` where the body is V2 binary; their
            names in any case.
    """

    content: bytes
    headers: Mapping[str, str]


class Backend(Protocol):
    """A model server: TorchServe over HTTP or gRPC, the Predictor in this process, or several versions of them.

    Every method raises ``InputError`` where the request is at fault and ``BackendError`` where the server is:
    ``BusyError`` when too much waits already, ``DeadlineError`` when time ran out.
    """

    async def infer(
        self, tensors: Mapping[str, Any], parameters: Mapping[str, Any], wanted: tuple[str, ...] = ()
    ) -> v2.Message:
        """One V2 request.

        Args:
            tensors: The inputs.
            parameters: The request's parameters.
            wanted: Outputs to return; all that were computed when empty.
        """
        ...

    async def forward(self, body: bytes, headers: Mapping[str, str], timeout_s: float | None = None) -> RawAnswer:
        """Send a V1, V2 or bare body as it is."""
        ...

    async def describe(self) -> dict[str, Any]:
        """What is known of the model: all of ``bundle.json`` that a caller or a study needs."""
        ...

    async def healthy(self) -> bool:
        """Whether the model answered a real inference within the last moments."""
        ...

    def lease(self, version: str | None = None) -> AbstractAsyncContextManager[Backend]:
        """One version for as long as the context lasts, whatever is swapped meanwhile.

        A job of several requests (a whole study) holds a lease, so that all of it is answered by one model.

        Args:
            version: The version; None takes the default.

        Raises:
            UnknownVersionError: It is not served.
        """
        ...

    async def close(self) -> None:
        """Give back what is held."""
        ...


def too_large(max_request_mb: int) -> TooLargeError:
    """The refusal of a body over the limit."""
    return TooLargeError(f"the body is larger than {max_request_mb} MB", "send fewer slices or smaller pictures")
