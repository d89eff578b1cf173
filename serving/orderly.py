"""Being told to stop in the middle of a deployment: everything is put back first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def orderly_end() -> Iterator[None]:
    """Turn SIGTERM, which a pod that is cancelled gets, into an exception that unwinds."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: Any) -> None:
        # Once: what is being put back is not to be interrupted by the next.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
