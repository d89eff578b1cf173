"""The folder beside the output in which a download is prepared, and that only one process may use."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from slicewise.errors import RunLockedError, SourceError
from slicewise.studies.sources.space import disk_error

if os.name == "posix":
    import fcntl

LOCK = ".slicewise-download"
SUFFIX = ".partial"
# Where the dataset is put together, below the workplace.
ASSEMBLY = "dataset"


@contextlib.contextmanager
def workplace(out: Path) -> Iterator[Path]:
    """Yield ``<out>.partial``: left where it is after a failure, removed after success.

    Raises:
        SourceError: A folder of this name is there that is not ours.
        RunLockedError: Another download to ``out`` is running.
    """
    folder = out.with_name(out.name + SUFFIX)
    if folder.exists() and not (folder / LOCK).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise SourceError(f"{folder} is in the way", "choose another --out, or remove it")
    with locked(folder, f"another download to {out} is running"):
        try:
            yield folder
        except BaseException:
            _tidy(folder)
            raise
        # The lock file last: what a kill leaves is known as ours by it.
        for path in folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def locked(folder: Path, message: str) -> Iterator[None]:
    """Hold a folder, made where it is missing, for this process; the system lets go of it when the process ends.

    Raises:
        RunLockedError: Another process holds it.
    """
    while True:
        with _opened(folder) as handle:
            if os.name == "posix":
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    raise RunLockedError(message, "wait for it, or stop it") from error
                if not _is_still(folder / LOCK, handle.fileno()):
                    # Its last holder has just removed the folder.
                    continue
            yield
            return


def _opened(folder: Path) -> IO[str]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return (folder / LOCK).open("a", encoding="ascii")
    except OSError as error:
        raise disk_error(error, f"cannot write {folder}") from error


def _tidy(folder: Path) -> None:
    """Leave what the next call can go on from, and nothing else."""
    shutil.rmtree(folder / ASSEMBLY, ignore_errors=True)
    for path in folder.iterdir():
        if path.is_dir() and not any(inside.is_file() for inside in path.rglob("*")):
            shutil.rmtree(path, ignore_errors=True)
    if [path.name for path in folder.iterdir()] == [LOCK]:
        shutil.rmtree(folder, ignore_errors=True)


def stage_of(root: Path, given: str, extra: str = "") -> Path:
    """The folder of one source below ``root``: its own for every word and everything else that matters."""
    digest = hashlib.sha256(f"{given}\0{extra}".encode()).hexdigest()[:16]
    return root / f"source-{digest}"


def _is_still(path: Path, descriptor: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    return False
