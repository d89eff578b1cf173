"""Room on the disk: looked at before a download begins, and again while sizes that nobody knew unfold."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

from slicewise.errors import SourceError

GB = 10**9
CURE = "free some disk, choose another --out or download.cache, or lower download.keep_free_gb"


def require_space(folder: Path, needed_bytes: int, keep_free_gb: float, what: str) -> None:
    """Refuse what would not fit.

    Args:
        folder: Where it is to be written; it need not exist yet.
        needed_bytes: How much will be written; nothing is looked at where this is 0.
        keep_free_gb: What must stay free.
        what: For the message.

    Raises:
        SourceError: Names the space needed, kept and free.
    """
    if needed_bytes <= 0:
        return
    place = next(parent for parent in (folder, *folder.resolve().parents) if parent.exists())
    free = shutil.disk_usage(place).free
    if needed_bytes + keep_free_gb * GB > free:
        raise SourceError(
            f"{what} needs {as_size(needed_bytes)} and {keep_free_gb:g} GB are to stay free, "
            f"but {place} has {as_size(free)} free",
            CURE,
        )


def disk_error(error: OSError, doing: str) -> SourceError:
    """What to tell of a write that failed."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return SourceError(f"{doing}: the disk is full", CURE)
    return SourceError(f"{doing}: {error.strerror or error}", "check the permissions and the disk")


def as_size(number: float) -> str:
    """A number of bytes for people: 12.3 MB."""
    for unit in ("bytes", "kB", "MB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "bytes" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} GB"
