"""How the loops are compiled.

numba notices a changed file by itself, but not that of a function called from another file: a loop and all that it
calls belong in one module.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

Loop = TypeVar("Loop", bound=Callable[..., Any])


def _can_keep_compiled_code() -> bool:
    """Whether numba finds a folder to keep compiled code in: an image with a read-only root has none."""
    try:
        numba.njit(cache=True)(lambda: None)
    except RuntimeError:
        return False
    return True


OPTIONS: dict[str, Any] = {"cache": _can_keep_compiled_code(), "nogil": True, "error_model": "numpy"}


def jit(function: Loop) -> Loop:
    """Compile at the first call with each number type."""
    return cast("Loop", numba.njit(**OPTIONS)(function))


def jit_finite(function: Loop) -> Loop:
    """``jit`` for loops that never see NaN: least and greatest are then taken many at a time, in any order."""
    return cast("Loop", numba.njit(**OPTIONS, fastmath={"nnan", "nsz"})(function))


def jit_sums(function: Loop) -> Loop:
    """``jit`` for sums that may run in any order, many at a time; the same machine still repeats them exactly."""
    return cast("Loop", numba.njit(**OPTIONS, fastmath={"nnan", "nsz", "reassoc", "contract"})(function))
