"""Small synthetic stores, and processes that write to them."""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from slicewise.config import SliceConfig
from slicewise.slices.quality import QualityRecord
from slicewise.slices.store import (
    SliceEntry,
    SliceStore,
    StoreIndex,
    StudyEntry,
    append_studies,
    staging,
    study_key,
    write_index,
    write_study,
)

CONFIG = SliceConfig(size=32, modalities=("flair", "t1"))
QUALITY = QualityRecord(frame=(9, 40, 40), coverage=0.25, snr={"flair": 12.5, "t1": None})
NO_DIGEST = "0" * 32


def slices(count: int, seed: int = 0) -> tuple[SliceEntry, ...]:
    rng = random.Random(seed)
    return tuple(
        SliceEntry(
            z=2 * z,
            tumour=rng.choice([True, False, None]),
            selected=rng.random() < 0.5,
            foreground=round(rng.random(), 4),
            pixel_mm2=round(1 + rng.random(), 6),
            box=(-1, 2, 40, 41),
        )
        for z in range(count)
    )


def entry(study_id: str, count: int = 4, seed: int = 0, **changes: Any) -> StudyEntry:
    values: dict[str, Any] = {
        "key": study_key(study_id),
        "study_id": study_id,
        "patient_id": f"patient of {study_id}",
        "source": "test",
        "layout": "brats",
        "synthetic": True,
        "modalities": ("flair",),
        "known_regions": ("WT",),
        "spacing_mm": (3.0, 1.0, 1.0),
        "spacing_known": True,
        "quality": QUALITY,
        "content_xxh3": NO_DIGEST,
        "label_xxh3": NO_DIGEST,
        "native_xxh3": NO_DIGEST,
        "warnings": (),
        "slices": slices(count, seed),
    }
    return StudyEntry(**{**values, **changes})


def pixels(seed: int, count: int = 4, config: SliceConfig = CONFIG) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    shape = (count, len(config.modalities), config.size, config.size)
    labels = rng.integers(0, 5, size=(count, config.size, config.size), dtype=np.uint8)
    return rng.normal(size=shape).astype(np.float16), labels


def native(seed: int) -> np.ndarray:
    """Head and labels in the voxels of the frame of ``QUALITY``."""
    rng = np.random.default_rng(seed)
    return np.asarray(rng.choice(np.array([0, 128, 129, 130, 132], dtype=np.uint8), size=QUALITY.frame))


def written(folder: Path, study_id: str, seed: int, count: int = 4, *, masked: bool = True) -> StudyEntry:
    """Write a study's arrays, and give its entry."""
    images, labels = pixels(seed, count)
    digests = write_study(folder, study_key(study_id), images, labels if masked else None, native(seed))
    content, label, own = digests
    return entry(study_id, count, seed, content_xxh3=content, label_xxh3=label, native_xxh3=own)


def make_store(folder: Path, study_ids: Sequence[str] = ("a", "b", "c")) -> SliceStore:
    folder.mkdir(parents=True)
    entries = tuple(written(folder, study_id, seed, masked=seed != 1) for seed, study_id in enumerate(study_ids))
    index = StoreIndex(preprocessing=CONFIG, data_digest="first", sources=("test",), studies=entries)
    write_index(folder, index)
    return SliceStore(folder)


def append_one(folder: Path, study_id: str, seed: int = 7) -> None:
    with staging(folder) as staged:
        append_studies(folder, staged, [written(staged, study_id, seed)], CONFIG, f"digest of {study_id}")


def append_many(folder: Path, study_ids: Sequence[str], start: Any) -> None:
    start.wait()
    for study_id in study_ids:
        append_one(folder, study_id)


def append_and_die(folder: Path, study_id: str, moment: int) -> None:
    """Append, and be killed at the ``moment``-th call of the process to the system's files."""
    calls = 0

    def hook(event: str, _: object) -> None:
        nonlocal calls
        if event.startswith(("open", "os.", "shutil.", "fcntl.", "tempfile.")):
            calls += 1
            if calls == moment:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    append_one(folder, study_id)


def append_until_killed(folder: Path, started: Any) -> None:
    for count in range(10_000):
        append_one(folder, f"endless_{os.getpid()}_{count}")
        started.release()
