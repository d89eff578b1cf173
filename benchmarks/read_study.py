"""Reading BraTS studies (five .nii.gz files each): SliceWise against plain nibabel and against bare decompression.

Everything runs interleaved in one process and one thread; the figure of each way is the processor time of its fastest
round, per study. The decompressors run as in ``read_study``: all five results of a study are held until it is
done. All is measured twice: as any program runs, and after ``keep_freed_memory``, which spares the kernel from
clearing 80 MB of fresh pages per study (more than half of the time).

python benchmarks/read_study.py DATA/brats > benchmarks/results/read_study.json

Needs the wheels ``deflate`` (libdeflate), ``isal`` and ``zlib-ng``; the two latter for the comparison only.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import resource
import struct
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import deflate
import nibabel as nib
import numpy as np
from isal import isal_zlib
from zlib_ng import zlib_ng

from slicewise.studies.layouts import discover
from slicewise.studies.memory import keep_freed_memory
from slicewise.studies.reading import read_study
from slicewise.studies.study import StudyRecord

ROUNDS = 5
GZIP = 31


def files_of(record: StudyRecord, root: Path) -> list[Path]:
    return [root / name for names in (*record.images.values(), record.labels) for name in names]


def plain_nibabel(record: StudyRecord, root: Path) -> Any:
    return [nib.load(path).get_fdata() for path in files_of(record, root)]


def nibabel_stored_type(record: StudyRecord, root: Path) -> Any:
    return [np.asanyarray(nib.load(path).dataobj) for path in files_of(record, root)]


def unpack(one: Callable[[bytes, int], Any]) -> Callable[[StudyRecord, Path], Any]:
    def study(record: StudyRecord, root: Path) -> Any:
        packed = [path.read_bytes() for path in files_of(record, root)]
        return [one(stream, struct.unpack("<I", stream[-4:])[0]) for stream in packed]

    return study


WAYS: dict[str, Callable[[StudyRecord, Path], Any]] = {
    "nibabel get_fdata": plain_nibabel,
    "nibabel, stored type": nibabel_stored_type,
    "decompress only: zlib": unpack(lambda stream, size: zlib.decompress(stream, GZIP, size)),
    "decompress only: isal": unpack(lambda stream, size: isal_zlib.decompressobj(GZIP).decompress(stream, size + 1)),
    "decompress only: zlib-ng": unpack(lambda stream, size: zlib_ng.decompressobj(GZIP).decompress(stream, size + 1)),
    "decompress only: libdeflate": unpack(deflate.gzip_decompress),
    "slicewise read_study": read_study,
}


def compare(records: list[StudyRecord], root: Path) -> dict[str, Any]:
    best = dict.fromkeys(WAYS, float("inf"))
    for _ in range(ROUNDS):
        for name, way in WAYS.items():
            start = time.process_time()
            for record in records:
                way(record, root)
            best[name] = min(best[name], (time.process_time() - start) / len(records))
    ours, limit = best["slicewise read_study"], best["decompress only: libdeflate"]
    return {
        "cpu_milliseconds_per_study": {name: round(seconds * 1e3, 1) for name, seconds in best.items()},
        "read_study_over_fastest_decompression": round(ours / limit, 2),
        "nibabel_get_fdata_over_read_study": round(best["nibabel get_fdata"] / ours, 1),
    }


def memory_mb(records: list[StudyRecord], root: Path) -> dict[str, int]:
    """The process's peak before any study and after all of them, in a process of its own."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for record in records:
        read_study(record, root)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"after_imports": before >> 10, "after_all_studies": after >> 10}


def main(root: Path) -> None:
    logging.disable()
    records = discover(root, "brats")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        peak = pool.apply(memory_mb, (records, root))
    result = {"studies": len(records), "peak_memory_mb": peak, "memory_given_back": compare(records, root)}
    keep_freed_memory()
    result["memory_kept"] = compare(records, root)
    json.dump(result, sys.stdout, indent=2)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
