"""Stores of one-slice studies that a test makes by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from slicewise.config import SliceConfig
from slicewise.slices.quality import QualityRecord
from slicewise.slices.store import (
    SliceEntry,
    SliceStore,
    SliceTable,
    StoreIndex,
    StudyEntry,
    StudyFailure,
    write_index,
    write_study,
)

SIZE = 32


@dataclass(frozen=True)
class Made:
    """One study: its key, patient, what its label says, and what it shows."""

    key: str
    patient: str | None = None
    tumour: bool | None = True
    image: NDArray[np.floating] = field(default_factory=lambda: picture(0))
    label: NDArray[np.uint8] | None = None
    source: str = "test"


def picture(seed: int, size: int = SIZE) -> NDArray[np.float64]:
    """A smooth random image [1, size, size] in a disc that fills the frame."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    blobs = np.kron(rng.normal(size=(size // 4, size // 4)), np.ones((4, 4)))
    return np.asarray(np.where(np.hypot(rows, columns) < 0.98, blobs, 0.0))[None]


def write_store(folder: Path, studies: Sequence[Made], failures: Sequence[str] = (), digest: str = "0") -> SliceStore:
    """Write and open a store with one channel, flair."""
    entries = []
    for study in studies:
        image = study.image[None].astype(np.float16)
        label = None if study.label is None else study.label[None].astype(np.uint8)
        (folder / "studies").mkdir(parents=True, exist_ok=True)
        head = np.full((1, SIZE, SIZE), 128, dtype=np.uint8)
        content, mask, native = write_study(folder, study.key, image, label, head)
        box = (0, 0, SIZE, SIZE)
        row = SliceEntry(z=0, tumour=study.tumour, selected=True, foreground=0.5, pixel_mm2=1.0, box=box)
        entries.append(
            StudyEntry(
                key=study.key,
                study_id=f"{study.key}/id",
                patient_id=study.patient,
                source=study.source,
                layout="images",
                synthetic=True,
                modalities=("flair",),
                known_regions=(),
                spacing_mm=(1, 1, 1),
                spacing_known=False,
                quality=QualityRecord(frame=(1, SIZE, SIZE), coverage=0.5, snr={"flair": None}),
                content_xxh3=content,
                label_xxh3=mask,
                native_xxh3=native,
                warnings=(),
                slices=SliceTable.of([row]),
            )
        )
    index = StoreIndex(
        preprocessing=SliceConfig(size=studies[0].image.shape[-1], modalities=("flair",)),
        data_digest=digest,
        sources=tuple(sorted({study.source for study in studies})),
        studies=tuple(entries),
        failures=tuple(StudyFailure(study_id=name, reason="unreadable") for name in failures),
    )
    write_index(folder, index)
    return SliceStore(folder)
