"""Ending a process with all its descendants."""

from __future__ import annotations

import contextlib

import psutil

GRACE_S = 8.0


def tree_of(pid: int) -> list[psutil.Process]:
    """The process and all its descendants, those that are still there."""
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def end_tree(pid: int, grace_s: float = GRACE_S) -> list[int]:
    """Terminate a process and its descendants, kill what is left after ``grace_s``, and wait for them.

    Returns:
        The ids of processes that could not be ended (none, normally).
    """
    processes = tree_of(pid)
    if processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            processes[0].terminate()
    psutil.wait_procs(processes, timeout=grace_s)
    return kill_all(processes)


def kill_all(processes: list[psutil.Process], grace_s: float = GRACE_S) -> list[int]:
    """Kill those that are still there, and wait.

    Returns:
        The ids of processes that could not be ended.
    """
    alive = [process for process in processes if process.is_running()]
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    _, alive = psutil.wait_procs(alive, timeout=grace_s)
    return [process.pid for process in alive]
