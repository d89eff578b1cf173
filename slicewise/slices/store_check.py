"""The slice store's integrity check."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from slicewise.errors import StoreError
from slicewise.progress import Update
from slicewise.slices.store_arrays import digest_of, open_array
from slicewise.slices.store_index import IMAGE, LABEL, NATIVE, STUDIES, StoreIndex, StudyEntry
from slicewise.slices.store_native import unpack_native


@dataclass(frozen=True)
class Fault:
    """What is wrong with one file of a store.

    Attributes:
        path: The file.
        problem: What is wrong with it; names the file.
    """

    path: Path
    problem: str

    def __str__(self) -> str:
        return self.problem


def find_faults(folder: Path, index: StoreIndex, update: Update | None = None) -> list[Fault]:
    """Compare type, shape and digest of every array file with the index.

    Files are read by as many threads as there are cores; memory stays at a few megabytes for each.

    Args:
        folder: The store's folder.
        index: Its index.
        update: Shows progress, study by study.

    Returns:
        Every fault, in the index's order.
    """
    faults: list[Fault] = []
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        checks = pool.map(lambda study: list(_study_faults(folder, index, study)), index.studies)
        for done, (study, found) in enumerate(zip(index.studies, checks, strict=True), start=1):
            faults.extend(found)
            if update:
                update(done, len(index.studies), study.key)
    return faults


def _study_faults(folder: Path, index: StoreIndex, study: StudyEntry) -> Iterator[Fault]:
    config, n = index.preprocessing, len(study.slices)
    planes = (n, config.size, config.size)
    image = (n, len(config.modalities), config.size, config.size)
    home = folder / STUDIES / study.key
    files: tuple[tuple[Path, str | None, Callable[[Path], object]], ...] = (
        (home / IMAGE, study.content_xxh3, lambda path: open_array(path, "<f2", image)),
        (home / LABEL, study.label_xxh3, lambda path: open_array(path, "|u1", planes)),
        (home / NATIVE, study.native_xxh3, lambda path: unpack_native(path, study.quality.frame)),
    )
    for path, digest, open_file in files:
        if digest is None:
            continue
        try:
            open_file(path)
            if digest_of(path) != digest:
                yield Fault(path, f"{path} was changed: its digest is another")
        except StoreError as error:
            yield Fault(path, error.message)
        except OSError as error:
            yield Fault(path, f"{path} cannot be read: {error.strerror}")
