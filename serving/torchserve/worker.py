"""Runs one of TorchServe's Python programs: gone when the JVM is gone, and quick on its way to it and back.

A worker that has not been connected yet when the JVM is killed would wait for ever. The rest takes milliseconds off
every request: a batch is read in large pieces instead of field by field, and figures are told after the answer.
"""

from __future__ import annotations

import logging
import os
import runpy
import sys
from io import BufferedReader
from socket import SocketIO, socket

from serving.torchserve.figure_lines import FigureLines
from slicewise.process import OWNER_VARIABLE, exit_with_owner

READ_BYTES = 1 << 16
# TorchServe's own words for every batch, which tell nothing that its metrics do not.
CHATTER = "Backend received inference at"
FIGURES = "ts.metrics.caching_metric"

# One in a worker's life.
_streams: dict[socket, BufferedReader] = {}


def main(arguments: list[str]) -> None:
    """Run the script ``arguments[0]`` with the rest, or Python itself with options."""
    if not arguments or arguments[0].startswith("-"):
        os.execv(sys.executable, [sys.executable, *arguments])
    owner = int(os.environ.get(OWNER_VARIABLE) or os.getppid())
    exit_with_owner(owner, lambda: os._exit(1))
    hasten()
    sys.argv = arguments
    runpy.run_path(arguments[0], run_name="__main__")


def hasten() -> None:
    """Change how TorchServe's worker reads and logs; what it says and answers stays the same."""
    from ts.protocol import otf_message_handler

    otf_message_handler._retrieve_buffer = receive
    logging.getLogger().addFilter(lambda record: not str(record.msg).startswith(CHATTER))
    figures = logging.getLogger(FIGURES)
    figures.addHandler(FigureLines(sys.stdout))
    figures.propagate = False


def receive(connection: socket, length: int) -> bytearray:
    """The next ``length`` bytes; TorchServe's own function asks the kernel for every field, however short.

    Raises:
        SystemExit: The JVM closed the connection.
    """
    stream = _streams.get(connection)
    if stream is None:
        stream = _streams[connection] = BufferedReader(SocketIO(connection, "r"), READ_BYTES)
    data = bytearray(length)
    if length and stream.readinto(data) < length:
        logging.getLogger().info("Frontend disconnected.")
        sys.exit(0)
    return data


if __name__ == "__main__":
    main(sys.argv[1:])
