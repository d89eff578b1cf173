"""The slice store: the preprocessed set on disk, opened for reading.

Format ``slicewise-store`` version 3 (``docs/slice-store.md``): a folder with ``store.json`` (everything but pixels)
and, for each study, ``studies/<key>/image.npy`` (``[n, C, size, size]`` float16) and, where it has labels,
``label.npy`` (``[n, size, size]`` uint8, BraTS values). Both are memory-mapped, so that any slice is readable from
any process without copying the rest. ``native.zz`` holds head and labels in the study's own voxels.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from slicewise.errors import StoreError
from slicewise.slices.crop import SliceGeometry
from slicewise.slices.store_append import append_studies, staging
from slicewise.slices.store_arrays import open_array, will_need, write_study
from slicewise.slices.store_check import Fault, find_faults
from slicewise.slices.store_index import (
    CURE,
    IMAGE,
    INDEX,
    LABEL,
    NATIVE,
    STUDIES,
    StoreIndex,
    StudyEntry,
    StudyFailure,
    read_index,
    write_index,
)
from slicewise.slices.store_keys import study_key, study_keys
from slicewise.slices.store_native import join_native, split_native, unpack_native
from slicewise.slices.store_slices import SliceEntry, SliceTable

__all__ = [
    "CURE",
    "INDEX",
    "Fault",
    "SliceEntry",
    "SliceStore",
    "SliceTable",
    "StoreIndex",
    "StudyEntry",
    "StudyFailure",
    "append_studies",
    "find_faults",
    "join_native",
    "staging",
    "study_key",
    "study_keys",
    "write_index",
    "write_study",
]
OPEN_MAPS = 256


class SliceStore:
    """A store opened for reading.

    It may be used from several threads, be copied to other processes, and outlive a fork.

    Args:
        folder: The store's folder.
        open_maps: How many maps are kept open between calls. Each keeps one file open, and a process may commonly
            have 1,024; those used least recently are closed, once nobody holds their arrays.

    Attributes:
        index: The content of ``store.json``.
        studies: Key → study.

    Raises:
        StoreError: Missing, not a store, damaged, or of another format version.
    """

    def __init__(self, folder: Path, open_maps: int = OPEN_MAPS) -> None:
        self.folder = folder
        self.open_maps = open_maps
        self.index = read_index(folder)
        self.studies = {study.key: study for study in self.index.studies}
        self._open = functools.lru_cache(open_maps)(open_array)

    def __getstate__(self) -> dict[str, Any]:
        """Open maps stay behind when a store is sent to another process."""
        return {name: value for name, value in vars(self).items() if name != "_open"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._open = functools.lru_cache(self.open_maps)(open_array)

    def images(self, key: str) -> NDArray[np.float16]:
        """All slices of a study, ``[n, C, size, size]``, memory-mapped.

        Raises:
            StoreError: There is no such study, or its file is missing or damaged.
        """
        config = self.index.preprocessing
        shape = (len(self._study(key).slices), len(config.modalities), config.size, config.size)
        return cast("NDArray[np.float16]", self._open(self.folder / STUDIES / key / IMAGE, "<f2", shape))

    def labels(self, key: str) -> NDArray[np.uint8]:
        """All label planes of a study that has labels, ``[n, size, size]``, memory-mapped.

        Raises:
            StoreError: There is no such study, it has no labels, or its file is missing or damaged.
        """
        study, size = self._study(key), self.index.preprocessing.size
        if not study.has_labels:
            raise StoreError(f"study {key} of {self.folder} has no labels")
        shape = (len(study.slices), size, size)
        return cast("NDArray[np.uint8]", self._open(self.folder / STUDIES / key / LABEL, "|u1", shape))

    def native(self, key: str) -> tuple[NDArray[np.bool_], NDArray[np.uint8]]:
        """Head and labels in the study's own voxels, ``[D, H, W]`` each; the labels are 0 where there is no mask.

        Raises:
            StoreError: There is no such study, or its file is missing or damaged.
        """
        return split_native(unpack_native(self.folder / STUDIES / key / NATIVE, self._study(key).quality.frame))

    def geometry(self, key: str, row: int) -> SliceGeometry:
        """Where a stored plane lies in its slice.

        Raises:
            StoreError: There is no such study.
        """
        study = self._study(key)
        top, left, height, width = study.slices.box[row]
        return SliceGeometry(study.quality.frame[1:], top, left, (height, width))

    def prefetch(self, key: str, row: int) -> None:
        """Have the disk read one slice, and its labels, while the caller does something else.

        Called for a whole batch before its slices are read, it lets the disk work on all of them at once.

        Raises:
            StoreError: As ``images`` and ``labels`` do.
        """
        for array in (self.images(key), *([self.labels(key)] if self.studies[key].has_labels else ())):
            if isinstance(array, np.memmap):
                will_need(array, row)

    def _study(self, key: str) -> StudyEntry:
        try:
            return self.studies[key]
        except KeyError as error:
            raise StoreError(f"{self.folder} has no study {key!r}", "see 'slicewise store info'") from error

    def verify(self) -> None:
        """Compare every file with the index.

        Raises:
            StoreError: Names every file that is missing or was changed.
        """
        faults = find_faults(self.folder, self.index)
        if faults:
            told = "; ".join(str(fault) for fault in faults)
            raise StoreError(f"{len(faults)} file(s) of the store are bad: {told}", CURE)
