"""What a running stack says of itself, in a small JSON file."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from slicewise.errors import ServerError
from slicewise.files import read_json, write_json


@dataclass(frozen=True)
class StackState:
    """A stack that is ready.

    Attributes:
        pid: The stack's process.
        started: Its start time in seconds since the epoch, which tells it from a later process of the same id.
        gateway_url: REST, V1 and V2 over HTTP.
        grpc_port: V2 over gRPC, on the same host.
        torchserve_url: TorchServe's inference address.
        java_pid: TorchServe's process.
        log_folder: Where the logs are.
        status: ``ready``.
    """

    pid: int
    started: float
    gateway_url: str
    grpc_port: int
    torchserve_url: str
    java_pid: int
    log_folder: str
    status: str = "ready"

    def write(self, target: Path) -> None:
        """Write it atomically."""
        write_json(target, asdict(self))

    @classmethod
    def read(cls, source: Path) -> StackState:
        """Read it.

        Raises:
            ServerError: Missing, or not a state file.
        """
        try:
            return cls(**read_json(source))
        except (OSError, ValueError, TypeError) as error:
            raise ServerError(f"{source} is not the state of a server", "start one with 'slicewise serve'") from error
