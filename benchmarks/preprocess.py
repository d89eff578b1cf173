"""Preprocessing against the plain way and against the limit, one process, ratios in one run.

- plain: nibabel ``get_fdata``, z-score of each volume, ``np.savez_compressed`` per slice of four modalities and
  the label.
- limit: unpack the same files with the fastest library to hand (libdeflate) and write the same finished arrays.
- ours: ``prepare_study``, the whole of what a worker of ``slicewise preprocess`` does for a study, digests included.

The three are interleaved study by study; figures are medians over studies of the best of ``--repeat`` runs. Each
way also runs once in a process of its own for its peak memory.

    python benchmarks/preprocess.py --data ../shared/data/brats --out benchmarks/results/preprocess.json
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import deflate
import nibabel as nib
import numpy as np

from slicewise.config import PreprocessConfig, validate
from slicewise.slices.prepare import prepare_study
from slicewise.slices.store import StudyEntry
from slicewise.studies.dataset import study_files
from slicewise.studies.layouts import discover
from slicewise.studies.memory import keep_freed_memory
from slicewise.studies.study import StudyRecord

SETTINGS: dict[str, dict[str, Any]] = {
    "240, whole frame (as the plain way)": {
        "size": 240,
        "crop": "frame",
        "modalities": ["flair", "t1", "t1ce", "t2"],
    },
    "240, cropped to the brain": {"size": 240},
    "128, cropped to the brain (quick)": {"size": 128},
    "96, cropped to the brain (smoke)": {"size": 96},
}


def plain(record: StudyRecord, root: Path, out: Path) -> None:
    """What a first script would do."""
    volumes = []
    for files in record.images.values():
        data = nib.load(root / files[0]).get_fdata()
        brain = data[data > 0]
        volumes.append((data - brain.mean()) / brain.std())
    label = nib.load(root / record.labels[0]).get_fdata()
    image = np.stack(volumes)
    for z in range(image.shape[3]):
        name = out / f"{record.study_id}_{z:03d}.npz"
        np.savez_compressed(name, image=image[..., z].astype(np.float32), label=label[..., z].astype(np.uint8))


def limit(record: StudyRecord, root: Path, out: Path, finished: dict[str, bytes]) -> None:
    """Nothing but unpacking and writing."""
    for path in study_files(record):
        packed = (root / path).read_bytes()
        deflate.gzip_decompress(packed, int.from_bytes(packed[-4:], "little"))
    for name, content in finished.items():
        (out / name).write_bytes(content)


def best(repeat: int, action: Callable[[], object]) -> tuple[float, float]:
    """The least wall and CPU seconds."""
    walls, cpus = [], []
    for _ in range(repeat):
        wall, cpu = time.perf_counter(), time.process_time()
        action()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return min(walls), min(cpus)


def peak_memory_bytes() -> int:
    """The most memory that this program has held; unlike ``ru_maxrss`` it forgets what ran before it."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024


def memory_of(way: str, record: StudyRecord, root: Path, config: PreprocessConfig, pipe: Any) -> None:
    """Run one way in this fresh process and send its peak memory, before and after."""
    before = peak_memory_bytes()
    with tempfile.TemporaryDirectory() as folder:
        if way == "plain":
            plain(record, root, Path(folder))
        else:
            prepare_study(record, root, Path(folder), config, 0)
    pipe.send((before, peak_memory_bytes()))


def peak(way: str, record: StudyRecord, root: Path, config: PreprocessConfig) -> dict[str, int]:
    """Peak memory in MB of one study in a fresh process: all of it, and what the imports alone take."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=memory_of, args=(way, record, root, config, sender))
    process.start()
    before, after = receiver.recv()
    process.join()
    return {"imports_mb": before >> 20, "peak_mb": after >> 20}


def measure(records: list[StudyRecord], root: Path, changes: dict[str, Any], repeat: int, plains: Any) -> Any:
    """All studies under one setting; every run writes into a folder of its own, whose removal is not timed."""
    config = validate(PreprocessConfig, {"slice": changes})
    rows = []
    with tempfile.TemporaryDirectory() as text:
        folders = (Path(tempfile.mkdtemp(dir=text)) for _ in itertools.count())
        for record in records:
            stored = next(folders)
            entry = prepare_study(record, root, stored, config, 0)
            assert isinstance(entry, StudyEntry), entry
            finished = {path.name: path.read_bytes() for path in (stored / "studies" / entry.key).iterdir()}
            ours = best(repeat, lambda record=record: prepare_study(record, root, next(folders), config, 0))
            bound = best(repeat, lambda record=record, f=finished: limit(record, root, next(folders), f))
            if record.study_id not in plains:
                plains[record.study_id] = best(1, lambda record=record: plain(record, root, next(folders)))
            size = sum(map(len, finished.values()))
            rows.append({"ours": ours, "limit": bound, "plain": plains[record.study_id], "mb": size / 1e6})
            for used in Path(text).iterdir():
                shutil.rmtree(used)
    return rows


def summary(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Medians over studies."""
    result = {}
    for at, clock in enumerate(("wall", "cpu")):
        for way in ("plain", "limit", "ours"):
            result[f"{way}_{clock}_s"] = round(statistics.median(row[way][at] for row in rows), 4)
        result[f"plain_over_ours_{clock}"] = round(statistics.median(r["plain"][at] / r["ours"][at] for r in rows), 2)
        result[f"ours_over_limit_{clock}"] = round(statistics.median(r["ours"][at] / r["limit"][at] for r in rows), 2)
    result["written_mb"] = round(statistics.median(row["mb"] for row in rows), 1)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    keep_freed_memory()  # as the workers do; all three ways profit
    records = [record for record in discover(options.data, "brats") if record.labels and len(record.images) == 4]
    plains: dict[str, tuple[float, float]] = {}
    settings = {
        name: summary(measure(records, options.data, changes, options.repeat, plains))
        for name, changes in SETTINGS.items()
    }
    whole = validate(PreprocessConfig, {"slice": SETTINGS["240, whole frame (as the plain way)"]})
    result = {
        "studies": len(records),
        "repeat": options.repeat,
        "cores": os.cpu_count(),
        "settings": settings,
        "memory": {way: peak(way, records[0], options.data, whole) for way in ("plain", "ours")},
    }
    text = json.dumps(result, indent=2)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
