"""Atomic writes and content digests.

A kill at any moment leaves either the old file or the new one, never half of one: everything is written under
a temporary name in the same folder and then renamed.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slicewise.errors import StoreError

CHUNK_BYTES = 1 << 20
AT_FDCWD = -100
RENAME_EXCHANGE = 2


@contextlib.contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary path that replaces ``target`` when the block ends without an error.

    The file is flushed to the disk before the rename, so that a power cut cannot leave an empty file.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        temporary.chmod(0o644)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary folder that replaces ``target`` when the block ends without an error."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        replace_folder(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def replace_folder(folder: Path, target: Path) -> None:
    """Put a finished folder in the place of another on the same disk; the other may be left in its place."""
    if not target.exists():
        folder.replace(target)
    elif not _exchange(folder, target):
        # Elsewhere than on Linux two steps are needed: a kill between them leaves neither folder.
        shutil.rmtree(target)
        folder.replace(target)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two paths in one step; False where the system or the file system cannot (renameat2, Linux)."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None) if sys.platform == "linux" else None
    if renameat2 is None:
        return False
    return bool(renameat2(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0)


def write_text(target: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(target: Path, value: Any) -> None:
    """Write ``value`` as indented JSON atomically; NaN and infinity are refused, as JSON has neither.

    Raises:
        ValueError: ``value`` holds a NaN or an infinity.
    """
    write_text(target, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(source: Path) -> Any:
    """Read a UTF-8 JSON file.

    Raises:
        OSError: The file cannot be read.
        json.JSONDecodeError: The file is not JSON.
    """
    return json.loads(source.read_text(encoding="utf-8"))


def read_result(source: Path, verb: str) -> Any:
    """Read a JSON file that an earlier verb should have written.

    Raises:
        StoreError: Missing or damaged; says which verb makes it.
    """
    try:
        return read_json(source)
    except (OSError, ValueError) as error:
        raise StoreError(f"{source} is missing or damaged", f"run 'slicewise {verb}' first") from error


def sha256_file(source: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with source.open("rb") as handle:
        while chunk := handle.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_json(value: Any) -> str:
    """SHA-256 of a JSON value in canonical form (sorted keys, no spaces)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
