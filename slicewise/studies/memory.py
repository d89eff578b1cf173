"""Keeping freed memory for the next study."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc
KEPT_BYTES = 1 << 30


def keep_freed_memory() -> bool:
    """Let this process reuse the memory of one study for the next, instead of giving it back in between.

    Volumes are large enough for glibc to map and unmap each one, and the kernel then clears every page anew: more
    than half the time of reading a study. For worker processes that read one study after another; the process
    holds on to what its largest study took.

    Returns:
        Whether the C library is one that can be told (glibc).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    return bool(mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)) and bool(mallopt(M_MMAP_THRESHOLD, KEPT_BYTES))
