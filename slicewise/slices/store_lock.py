"""The slice store's lock, and what killed writers left in a store."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from slicewise.errors import StoreError
from slicewise.slices.store_index import IMAGE, INDEX, LABEL, NATIVE, STUDIES, StoreIndex

LOCK = "store.lock"
STAGING = ".staging-"
OWNER = "owner.lock"
WRITABLE = "check its permissions and the space on the disk"


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the store's lock, waiting for it; a killed process lets go of it by itself.

    Raises:
        StoreError: There is no store, or it cannot be written.
    """
    if not (folder / INDEX).is_file():
        raise StoreError(f"{folder} is not a slice store: it has no {INDEX}", "run 'slicewise preprocess' first")
    try:
        handle = _lock_file(folder / LOCK)
    except OSError as error:
        raise StoreError(f"{folder} cannot be written: {error.strerror}", WRITABLE) from error
    with handle:
        yield


def _lock_file(path: Path) -> IO[str]:
    """Open and lock a file; again when the store was replaced by another while this process waited."""
    while True:
        handle = path.open("a")
        fcntl.flock(handle, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle.fileno()), path.stat()):
                return handle
        handle.close()


def leftovers(folder: Path, index: StoreIndex) -> list[Path]:
    """What lies in a store and belongs to no study: remains of killed writers, and files put there by others.

    The staging folders of appends that are still running are not counted.
    """
    keys = {study.key for study in index.studies}
    found = [path for path in folder.iterdir() if path.name not in {INDEX, LOCK, STUDIES} and not _is_owned(path)]
    studies = folder / STUDIES
    for path in studies.iterdir() if studies.is_dir() else ():
        if path.name not in keys:
            found.append(path)
        else:
            found += [file for file in path.iterdir() if file.name not in {IMAGE, LABEL, NATIVE}]
    return sorted(path for path in found if path.exists() or path.is_symlink())


def _is_owned(path: Path) -> bool:
    """Whether this is the staging folder of a process that still runs."""
    if not path.name.startswith(STAGING):
        return False
    try:
        with (path / OWNER).open("r+") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def sweep(folder: Path, index: StoreIndex) -> None:
    """Remove what killed writers left; the caller holds the store's lock. Strangers' files are not touched."""
    for path in leftovers(folder, index):
        if path.parent.name == STUDIES or path.name.startswith((STAGING, f".{INDEX}.")):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
