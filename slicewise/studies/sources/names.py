"""Names that others chose (object keys, archive members) as paths below a folder of ours."""

from __future__ import annotations

import unicodedata
from pathlib import PurePosixPath

from slicewise.errors import SourceError

MAX_PART_BYTES = 255
MAX_PATH_BYTES = 3000
CURE = "rename it at the source, or fetch the set by hand and give the folder"


def safe_path(name: str, where: str) -> PurePosixPath:
    """``name`` as a relative path that stays below the folder it is written to.

    Raises:
        SourceError: It is absolute, leads upwards, has a backslash, a drive, a control character or an empty or
            over-long part; names ``where`` and the name.
    """
    reason = _why_unsafe(name)
    if reason:
        raise SourceError(f"{where}: the name {name!r} {reason}", CURE)
    return PurePosixPath(name)


def _why_unsafe(name: str) -> str:
    parts = name.split("/")
    encoded = [part.encode("utf-8", "surrogatepass") for part in parts]
    reasons = {
        "is empty": not name,
        "is absolute": name.startswith("/") or name[1:2] == ":",
        "leads upwards": ".." in parts,
        "has an empty part": "" in parts or "." in parts,
        "has a backslash": "\\" in name,
        "has a control character": any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name),
        "is too long": max(map(len, encoded)) > MAX_PART_BYTES or sum(map(len, encoded)) > MAX_PATH_BYTES,
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def is_clutter(name: str) -> bool:
    """Whether a path holds nothing of the set: hidden files, and what macOS leaves in archives."""
    return any((part.startswith(".") and part not in (".", "..")) or part == "__MACOSX" for part in name.split("/"))


class NameBook:
    """The names taken so far; two that a file system might take for one are refused.

    Args:
        where: What the names belong to, for messages.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._files: dict[str, str] = {}
        self._folders: dict[str, str] = {}

    def add(self, path: PurePosixPath) -> None:
        """Take a name.

        Raises:
            SourceError: It is there already, differs from another in case or in the way of writing accents only,
                or is a file here and a folder there; names both.
        """
        key = _folded(path)
        other = self._files.get(key) or self._folders.get(key)
        parents = [_folded(parent) for parent in path.parents if parent.name]
        other = other or next((self._files[parent] for parent in parents if parent in self._files), None)
        if other:
            message = f"{self._where}: the names {other!r} and {str(path)!r} cannot lie in one folder"
            raise SourceError(message, CURE)
        self._files[key] = str(path)
        for parent in parents:
            self._folders.setdefault(parent, str(path))


def _folded(path: PurePosixPath) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", str(path)).casefold())
