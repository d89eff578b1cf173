"""The client of a SliceWise server: ``from slicewise.client import Client, AsyncClient``.

The library itself knows nothing of HTTP. This module is a door, not a dependency: it imports nothing until a name
is taken from it, and then fetches that name from ``serving.client``, which the extra ``serving`` brings the
packages for. ``slicewise predict --url`` goes through the same door.
"""

from __future__ import annotations

import importlib
from typing import Any

from slicewise.errors import UsageError

BEHIND = "serving.client"
EXTRA = "slicewise[serving]"


def __getattr__(name: str) -> Any:
    """A public name of ``serving.client``.

    Raises:
        UsageError: The packages of the extra are not installed.
        AttributeError: There is no such name.
    """
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = importlib.import_module(BEHIND)
    except ModuleNotFoundError as error:
        message = f"the client needs the package {error.name}, which is not installed"
        raise UsageError(message, f"pip install '{EXTRA}'") from error
    return getattr(module, name)
