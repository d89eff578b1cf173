"""A slice store as compressed npz files, one per study, for tools that know numpy and nothing else."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from slicewise.errors import StoreError
from slicewise.files import atomic_folder, write_json
from slicewise.progress import Update
from slicewise.slices.store import SliceStore
from slicewise.slices.store_index import StudyEntry

MANIFEST = "export.json"
FORMAT = "slicewise-export"
UNKNOWN = -1

logger = logging.getLogger(__name__)


def export_npz(store: SliceStore, out: Path, names: Sequence[str] = (), update: Update | None = None) -> list[Path]:
    """Write one ``<key>.npz`` per study, and ``export.json``; the folder appears when all of it is there.

    Each file holds ``image`` ``[n, C, size, size]`` float16, ``z`` int32, ``tumour`` int8 (1, 0, or -1 where
    unknown), ``selected`` bool, ``foreground`` and ``pixel_mm2`` float64, all ``[n]``, where there are labels
    ``label`` ``[n, size, size]`` uint8, and ``entry``, the study's record as a JSON string.

    Args:
        store: The store.
        out: The folder to write; an earlier export is replaced.
        names: Keys or study ids; none takes all.
        update: Shows progress.

    Returns:
        The files.

    Raises:
        StoreError: There is no such study, ``out`` holds something else, or a file of the store is damaged.
    """
    chosen = _choose(store, names)
    _check_out(out)
    try:
        with atomic_folder(out) as folder, ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            written = pool.map(lambda study: _write(store, study, folder), chosen)
            for done, study in enumerate(written, start=1):
                if update:
                    update(done, len(chosen), study.key)
            write_json(folder / MANIFEST, _manifest(store, chosen))
    except OSError as error:
        raise StoreError(
            f"{out} cannot be written: {error}", "free space on the disk, or give another --out"
        ) from error
    return [out / f"{study.key}.npz" for study in chosen]


def _choose(store: SliceStore, names: Sequence[str]) -> list[StudyEntry]:
    if not names:
        return list(store.studies.values())
    by_name = {study.study_id: study for study in store.studies.values()} | store.studies
    unknown = [name for name in names if name not in by_name]
    if unknown:
        raise StoreError(f"{store.folder} has no study {', '.join(unknown)}", "see 'slicewise store info --json'")
    return list({by_name[name].key: by_name[name] for name in names}.values())


def _check_out(out: Path) -> None:
    """Refuse to replace anything but an earlier export."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    try:
        earlier = json.loads((out / MANIFEST).read_text(encoding="utf-8"))["format"] == FORMAT
    except (OSError, ValueError, KeyError, TypeError):
        earlier = False
    if not earlier:
        raise StoreError(f"{out} is there already and is not an earlier export", "give another --out")


def _write(store: SliceStore, study: StudyEntry, folder: Path) -> StudyEntry:
    arrays: dict[str, Any] = {
        "image": store.images(study.key),
        "z": np.array(study.slices.z, dtype=np.int32),
        "tumour": np.array([UNKNOWN if value is None else value for value in study.slices.tumour], dtype=np.int8),
        "selected": np.array(study.slices.selected, dtype=bool),
        "foreground": np.array(study.slices.foreground, dtype=np.float64),
        "pixel_mm2": np.array(study.slices.pixel_mm2, dtype=np.float64),
        "entry": np.array(study.model_dump_json(exclude={"slices"})),
    }
    if study.has_labels:
        arrays["label"] = store.labels(study.key)
    np.savez_compressed(folder / f"{study.key}.npz", **arrays)
    return study


def _manifest(store: SliceStore, chosen: Sequence[StudyEntry]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "version": 1,
        "data_digest": store.index.data_digest,
        "preprocessing": store.index.preprocessing.model_dump(mode="json"),
        "studies": {study.key: f"{study.key}.npz" for study in chosen},
    }
