"""A models folder: sub-folders named by whole numbers are bundles, the file ``current`` names the default."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from slicewise.errors import BundleError, UsageError
from slicewise.files import write_text
from slicewise.inference.bundle import META, load_bundle

CURRENT = "current"
NUMBER = re.compile(r"[1-9][0-9]{0,8}")


def is_models_folder(folder: Path) -> bool:
    """Whether it is one, and not a bundle itself."""
    return folder.is_dir() and not (folder / META).exists() and bool(version_numbers(folder) or read_current(folder))


def version_numbers(folder: Path) -> tuple[int, ...]:
    """The versions there, in order.

    Raises:
        UsageError: The folder cannot be read.
    """
    try:
        names = [entry.name for entry in os.scandir(folder) if entry.is_dir()]
    except OSError as error:
        raise UsageError(f"{folder} cannot be read ({error.strerror})", "give a models folder") from error
    return tuple(sorted(int(name) for name in names if NUMBER.fullmatch(name)))


def read_current(folder: Path) -> int | None:
    """The version that ``current`` names; None where it is absent or names none."""
    try:
        text = (folder / CURRENT).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
    return int(text) if NUMBER.fullmatch(text) else None


def fingerprint(folder: Path, number: int) -> tuple[tuple[str, int, int], ...]:
    """Names, sizes and times of a version's files: a bad version is tried again when they change."""
    try:
        entries = [(entry.name, entry.stat()) for entry in os.scandir(folder / str(number))]
    except OSError:
        return ()
    return tuple(sorted((name, status.st_size, status.st_mtime_ns) for name, status in entries))


def add_version(folder: Path, bundle: Path) -> int:
    """Copy a bundle in as the next version; it appears whole or not at all.

    Returns:
        Its number. ``current`` stays as it is.

    Raises:
        BundleError: The bundle is damaged.
    """
    load_bundle(bundle)
    folder.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=".adding-", dir=folder))
    try:
        shutil.copytree(bundle, staged, dirs_exist_ok=True)
        load_bundle(staged)
        staged.chmod(0o755)
        number = max(version_numbers(folder), default=0) + 1
        # Renaming onto a folder that is not empty fails: then somebody else took the number.
        while (folder / str(number)).exists():
            number += 1
        staged.rename(folder / str(number))
    except OSError as error:
        raise BundleError(f"{bundle} cannot be copied ({error.strerror})", "check space and permissions") from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return number


def use_version(folder: Path, number: int) -> None:
    """Make a version the default, atomically; a running server follows within a second.

    Raises:
        UsageError: There is no such version.
        BundleError: It is damaged.
    """
    if number not in version_numbers(folder):
        known = ", ".join(map(str, version_numbers(folder))) or "none"
        raise UsageError(f"{folder} has no version {number}", f"use one of: {known}")
    load_bundle(folder / str(number))
    write_text(folder / CURRENT, f"{number}\n")


def describe_version(folder: Path, number: int) -> dict[str, Any]:
    """``version``, ``digest``, ``created`` and ``error`` of one; the last is empty where it is sound."""
    try:
        bundle = load_bundle(folder / str(number))
    except BundleError as error:
        return {"version": number, "digest": "", "created": "", "error": str(error)}
    return {"version": number, "digest": bundle.digest, "created": bundle.meta.created, "error": ""}
