"""Adding studies to a slice store that others may be reading or adding to.

New studies are written into a staging folder inside the store. ``append_studies`` then holds the store's lock,
renames their folders into place, and last replaces the index in one step. A reader sees the old index or the new
one; a kill at any moment leaves the store as it was, beside leftovers that readers do not look at and that the
next append sweeps away. A staging folder belongs to whoever holds the lock inside it, so that no append sweeps
away what another one is still writing.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from slicewise.config import SliceConfig
from slicewise.errors import StoreError
from slicewise.files import sha256_json
from slicewise.slices.store_arrays import open_array
from slicewise.slices.store_index import (
    IMAGE,
    LABEL,
    NATIVE,
    STUDIES,
    StoreIndex,
    StudyEntry,
    StudyFailure,
    read_index,
    write_index,
)
from slicewise.slices.store_lock import OWNER, STAGING, WRITABLE, locked, sweep
from slicewise.slices.store_native import unpack_native


@contextlib.contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """Yield a folder inside a store to write new studies into; what is still in it at the end is removed.

    Args:
        folder: The store's folder.

    Raises:
        StoreError: There is no store, or it cannot be written.
    """
    # Under the store's lock: an append that sweeps must not see the folder before it has its owner.
    with locked(folder):
        try:
            staged = Path(tempfile.mkdtemp(prefix=STAGING, dir=folder))
            owner = (staged / OWNER).open("w")
        except OSError as error:
            raise StoreError(f"{folder} cannot be written: {error.strerror}", WRITABLE) from error
        fcntl.flock(owner, fcntl.LOCK_EX)
    try:
        yield staged
    finally:
        shutil.rmtree(staged, ignore_errors=True)
        owner.close()


def append_studies(
    folder: Path,
    staged: Path,
    entries: Sequence[StudyEntry],
    preprocessing: SliceConfig,
    data_digest: str,
    failures: Sequence[StudyFailure] = (),
) -> StoreIndex:
    """Move staged studies into a store: all of them, or none.

    Args:
        folder: The store's folder.
        staged: What ``staging`` gave, with ``studies/<key>`` of every entry, from ``write_study``.
        entries: The new studies.
        preprocessing: What they went through; must be what the store's studies went through.
        data_digest: Digest of the dataset they were made from.
        failures: Studies of that dataset that were left out.

    Returns:
        The new index. Its ``data_digest`` is made from the old one and the new dataset's.

    Raises:
        StoreError: The store is missing or damaged, was made with other preprocessing, has one of the studies
            already, or a staged file is missing. The store is then as it was.
    """
    with locked(folder):
        old = read_index(folder)
        _check(folder, old, entries, preprocessing)
        index = _joined(old, entries, data_digest, failures)
        try:
            _move(folder, staged, entries, old)
            write_index(folder, index)
        except OSError as error:
            raise StoreError(f"{folder} cannot be added to: {error}", WRITABLE) from error
    return index


def _move(folder: Path, staged: Path, entries: Sequence[StudyEntry], old: StoreIndex) -> None:
    for entry in entries:
        _flush(staged, entry, old.preprocessing)
    sweep(folder, old)
    for entry in entries:
        (staged / STUDIES / entry.key).rename(folder / STUDIES / entry.key)


def _check(folder: Path, old: StoreIndex, entries: Sequence[StudyEntry], preprocessing: SliceConfig) -> None:
    mine, theirs = old.preprocessing.model_dump(), preprocessing.model_dump()
    other = [name for name in mine if mine[name] != theirs[name]]
    if other:
        raise StoreError(
            f"{folder} was made with other preprocessing: {', '.join(other)}",
            "use the same settings, or write another store",
        )
    keys = [entry.key for entry in entries]
    twice = sorted({study.key for study in old.studies} & set(keys)) or [k for k in keys if keys.count(k) > 1]
    if twice:
        raise StoreError(f"{folder} has study {twice[0]} already", "leave it out of the sources")


def _joined(
    old: StoreIndex, entries: Sequence[StudyEntry], data_digest: str, failures: Sequence[StudyFailure]
) -> StoreIndex:
    return StoreIndex(
        preprocessing=old.preprocessing,
        data_digest=sha256_json([old.data_digest, data_digest]),
        sources=tuple(sorted({*old.sources, *(entry.source for entry in entries)})),
        studies=tuple(sorted((*old.studies, *entries), key=lambda study: study.key)),
        failures=tuple(sorted((*old.failures, *failures), key=lambda failure: failure.study_id)),
    )


def _flush(staged: Path, entry: StudyEntry, config: SliceConfig) -> None:
    """Check a staged study, and bring it to the disk before any index speaks of it."""
    planes = (len(entry.slices), config.size, config.size)
    target = staged / STUDIES / entry.key
    open_array(target / IMAGE, "<f2", (planes[0], len(config.modalities), *planes[1:]))
    if entry.has_labels:
        open_array(target / LABEL, "|u1", planes)
    unpack_native(target / NATIVE, entry.quality.frame)
    for path in (*target.iterdir(), target):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
