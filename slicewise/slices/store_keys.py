"""Folder names for studies: safe on every file system, and no two studies under one name."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable

# No path separator, no leading dot (hidden, temporary, or ``..``), no leading dash (an option), short enough for a
# temporary name around it.
KEY_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$"
MAX_PLAIN = 100
WINDOWS_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def study_key(study_id: str) -> str:
    """A folder name for a study.

    An id that is a safe name already is its own key; one that had to be changed gets a mark of 8 hexadecimal
    digits of its SHA-256, so that no two ids share a folder. Ids that differ in case alone are two folders on
    most file systems; ``study_keys`` tells them apart on all.
    """
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", study_id)[:MAX_PLAIN].lstrip(".-").rstrip(".") or "study"
    if WINDOWS_DEVICES.fullmatch(plain):
        return _marked(plain.replace(".", "_"), study_id)
    return plain if plain == study_id else _marked(plain, study_id)


def study_keys(study_ids: Iterable[str]) -> dict[str, str]:
    """The folder names of a set of studies; those that differ in case alone all get a mark.

    Returns:
        Study id → key.
    """
    keys = {study_id: study_key(study_id) for study_id in study_ids}
    same = Counter(key.casefold() for key in keys.values())
    return {one: key if same[key.casefold()] == 1 else _marked(key, one) for one, key in keys.items()}


def _marked(plain: str, study_id: str) -> str:
    return f"{plain}-{hashlib.sha256(study_id.encode(errors='surrogatepass')).hexdigest()[:8]}"
