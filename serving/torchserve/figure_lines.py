"""A worker's figures on their way to the JVM, which reads them as lines of its output."""

from __future__ import annotations

import logging
import select
import threading
import time
from collections.abc import Iterator
from typing import TextIO

PAUSE_S = 0.1


class FigureLines(logging.Handler):
    """Gathers the lines of some batches and writes them at once, beside the thread that answers.

    One by one, before the answer, each would cost that thread a call of the kernel and wake up the JVM.

    Args:
        stream: The worker's output.
        pause_s: How long the first of them waits for others.
    """

    def __init__(self, stream: TextIO, pause_s: float = PAUSE_S) -> None:
        super().__init__()
        self._stream = stream
        self._pause_s = pause_s
        self._lines: list[str] = []
        self._some = threading.Event()
        threading.Thread(target=self._run, name="figures", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one line; ``handle`` holds the lock."""
        self._lines.append(self.format(record) + "\n")
        self._some.set()

    def flush(self) -> None:
        """Write what there is; logging does so too when the process ends."""
        self.acquire()
        try:
            lines, self._lines = self._lines, []
            self._some.clear()
        finally:
            self.release()
        for piece in _pieces(lines):
            self._stream.write(piece)
            self._stream.flush()

    def _run(self) -> None:
        while self._some.wait():
            time.sleep(self._pause_s)
            self.flush()


def _pieces(lines: list[str]) -> Iterator[str]:
    """Joined as far as a pipe takes them in one piece, or another thread's line may come in between."""
    piece = ""
    for line in lines:
        if piece and len(piece) + len(line) > select.PIPE_BUF:
            yield piece
            piece = ""
        piece += line
    if piece:
        yield piece
