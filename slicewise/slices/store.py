"""The slice store: the preprocessed set on disk.

Format ``slicewise-store`` version 1: a folder with ``store.json`` (everything but pixels) and, for each study,
``studies/<id>/image.npy`` (``[n, C, size, size]`` float16) and, where it has labels, ``label.npy``
(``[n, size, size]`` uint8, BraTS values). Both are memory-mapped, so that any slice is readable from any process
without copying the rest.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from slicewise.config import SliceConfig
from slicewise.errors import StoreError
from slicewise.files import sha256_file

INDEX = "store.json"
CURE = "run 'slicewise preprocess' again"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SliceEntry(_Record):
    """One slice.

    Attributes:
        z: Its index in the study, inferior to superior.
        tumour: Whether it shows tumour; None where that is unknown or too little to call.
        selected: Whether it takes part in training.
        foreground: Share of pixels that are head or brain.
        pixel_mm2: Area of one pixel of the stored plane in mm².
    """

    z: int
    tumour: bool | None
    selected: bool
    foreground: float
    pixel_mm2: float


class StudyEntry(_Record):
    """One study of the store, with its quality record.

    Attributes:
        key: Its folder's name.
        content_sha256: Digest of ``image.npy``; equal for a study listed twice under two names.
    """

    key: str
    study_id: str
    patient_id: str | None
    source: str
    layout: str
    synthetic: bool
    modalities: tuple[str, ...]
    known_regions: tuple[str, ...]
    spacing_mm: tuple[float, float, float]
    spacing_known: bool
    content_sha256: str
    label_sha256: str | None
    warnings: tuple[str, ...]
    slices: tuple[SliceEntry, ...]

    @property
    def has_labels(self) -> bool:
        """Whether a mask says where the tumour is."""
        return self.label_sha256 is not None

    @property
    def has_tumour(self) -> bool:
        """Whether any slice shows tumour."""
        return any(entry.tumour for entry in self.slices)


class StudyFailure(_Record):
    """A study that was left out, and why."""

    study_id: str
    reason: str


class StoreIndex(_Record):
    """The content of ``store.json``."""

    format: Literal["slicewise-store"] = "slicewise-store"
    version: Literal[1] = 1
    preprocessing: SliceConfig
    data_digest: str
    sources: tuple[str, ...]
    studies: tuple[StudyEntry, ...]
    failures: tuple[StudyFailure, ...] = ()


class SliceStore:
    """A store opened for reading.

    Args:
        folder: The store's folder.

    Raises:
        StoreError: Missing, not a store, or of another format version.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            text = (folder / INDEX).read_text(encoding="utf-8")
            self.index = StoreIndex.model_validate(json.loads(text))
        except OSError as error:
            raise StoreError(f"{folder} is not a slice store: no readable {INDEX}", CURE) from error
        except (json.JSONDecodeError, ValidationError, UnicodeDecodeError) as error:
            raise StoreError(f"{folder / INDEX} is damaged or of another version", CURE) from error
        self.studies = {study.key: study for study in self.index.studies}

    def images(self, key: str) -> NDArray[np.float16]:
        """All slices of a study, ``[n, C, size, size]``, memory-mapped."""
        return cast("NDArray[np.float16]", self._map(key, "image.npy"))

    def labels(self, key: str) -> NDArray[np.uint8]:
        """All label planes of a study that has labels, ``[n, size, size]``, memory-mapped."""
        return cast("NDArray[np.uint8]", self._map(key, "label.npy"))

    def _map(self, key: str, name: str) -> NDArray[np.generic]:
        path = self.folder / "studies" / key / name
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise StoreError(f"{path} is missing or damaged", CURE) from error
        if len(array) != len(self.studies[key].slices):
            raise StoreError(f"{path} holds {len(array)} slices, the index says otherwise", CURE)
        return array  # type: ignore[no-any-return]

    def verify(self) -> None:
        """Compare every file with its digest.

        Raises:
            StoreError: Names the first file that was changed.
        """
        for key, study in self.studies.items():
            expected = {"image.npy": study.content_sha256, "label.npy": study.label_sha256}
            for name, digest in expected.items():
                path = self.folder / "studies" / key / name
                if digest is not None and (not path.is_file() or sha256_file(path) != digest):
                    raise StoreError(f"{path} is missing or was changed", CURE)
