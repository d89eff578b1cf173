"""Ports on the loopback interface."""

from __future__ import annotations

import socket

from slicewise.errors import PortBusyError

LOOPBACK = "127.0.0.1"


def free_port() -> int:
    """A TCP port that is free at this moment."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def require_free(port: int, what: str, flag: str = "--port", host: str = LOOPBACK) -> int:
    """Check that ``port`` can be bound; 0 takes a free one.

    Args:
        port: The port.
        what: Who wants it, for the message.
        flag: The command line word that chooses another.
        host: The address it will be bound on.

    Raises:
        PortBusyError: Another process has it, or this user may not have it.
    """
    if port == 0:
        return free_port()
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except PermissionError as error:
            raise PortBusyError(
                f"port {port} ({what}) is not allowed", f"choose one above 1023 with {flag} N"
            ) from error
        except OSError as error:
            cure = f"stop the other process or choose another with {flag} N"
            raise PortBusyError(f"port {port} ({what}) is in use", cure) from error
    return port
