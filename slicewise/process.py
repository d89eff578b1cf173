"""Processes that end with their owner, so that a crash or a kill leaves nothing running.

``python -m slicewise.process PARENT COMMAND…`` replaces itself by COMMAND, which the kernel kills when PARENT
dies (Linux; elsewhere the command just runs).
"""

from __future__ import annotations

import ctypes
import logging
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable

PR_SET_PDEATHSIG = 1
POLL_S = 0.5
# The command's process id, for its own children: by the time they look, their parent may be another already.
OWNER_VARIABLE = "SLICEWISE_OWNER_PID"

log = logging.getLogger(__name__)


def set_parent_death_signal(number: int = signal.SIGKILL) -> bool:
    """Ask the kernel to send this process a signal when its parent dies; the request survives ``exec``.

    The parent is the *thread* that started this process: start such processes from a thread that stays.

    Returns:
        Whether the kernel can do it (Linux).
    """
    if sys.platform != "linux":
        return False
    return bool(ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(number), 0, 0, 0) == 0)


def exit_with_owner(pid: int, on_exit: Callable[[], None]) -> threading.Thread:
    """Call ``on_exit`` once, from a thread of its own, as soon as process ``pid`` is gone.

    Args:
        pid: The owner; it need not be this process's parent.
        on_exit: Should end this process.
    """
    descriptor = _open_pidfd(pid)

    def watch() -> None:
        if descriptor is None:
            while is_alive(pid):
                time.sleep(POLL_S)
        elif descriptor >= 0:
            select.select([descriptor], [], [])
            os.close(descriptor)
        on_exit()

    thread = threading.Thread(target=watch, name=f"owner-{pid}", daemon=True)
    thread.start()
    return thread


def is_alive(pid: int) -> bool:
    """Whether process ``pid`` is there (a zombie counts as gone where /proc tells)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as handle:  # noqa: PTH123
            return handle.read().rpartition(")")[2].split()[0] not in "ZX"
    except (OSError, IndexError):
        return sys.platform != "linux"


def _open_pidfd(pid: int) -> int | None:
    """A descriptor that becomes readable when ``pid`` ends; -1: already ended; None: not on this system."""
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return -1
    except OSError:
        return None


def exec_with_parent(arguments: list[str]) -> None:
    """Body of ``python -m slicewise.process``: tie this process to its parent, then become the command."""
    parent, *command = arguments
    set_parent_death_signal()
    if os.getppid() != int(parent):
        log.error("process %s, which started %s, has ended", parent, command[0])
        sys.exit(1)
    os.environ[OWNER_VARIABLE] = str(os.getpid())
    os.execvp(command[0], command)


if __name__ == "__main__":
    exec_with_parent(sys.argv[1:])
