"""The environment of the processes that we start."""

from __future__ import annotations

import os
from pathlib import Path


def child_environment() -> dict[str, str]:
    """This process's environment, with the packages of this very checkout or installation first."""
    here = str(Path(__file__).resolve().parents[1])
    inherited = os.environ.get("PYTHONPATH")
    path = os.pathsep.join([here, inherited] if inherited else [here])
    # Threads that spin while they wait take the cores from the other processes of a stack.
    return {"OMP_WAIT_POLICY": "PASSIVE"} | dict(os.environ) | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
