"""The source ``phantom``: synthetic studies, made on the spot and said to be synthetic wherever they appear."""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from slicewise.config import PhantomConfig
from slicewise.files import sha256_json
from slicewise.studies.sources.base import Context, Gathered, Plan, Source
from slicewise.studies.sources.found import find_studies

PHANTOM = "phantom"
MARK = ".phantoms"
# Four images of two bytes a voxel, of which noise leaves little to compress, and a label.
BYTES_PER_VOXEL = 9


class PhantomSource(Source):
    """Studies of no patient."""

    synthetic = True

    @property
    def licence(self) -> str | None:
        """None is needed."""
        return "synthetic, no patient data"

    def plan(self, context: Context) -> Plan:
        """Configuration, seed and the code that makes them."""
        size = _size(context)
        needed = size.n_studies * math.prod(size.shape) * BYTES_PER_VOXEL
        return Plan(_fingerprint(context), 0 if _is_made(context) else needed)

    def gather(self, context: Context) -> Gathered:
        """Make those that an earlier call has not made."""
        target, making = context.stage / "files", context.stage / "making"
        if not _is_made(context):
            shutil.rmtree(target, ignore_errors=True)
            if not _is_of(making, context):
                shutil.rmtree(making, ignore_errors=True)
                making.mkdir(parents=True)
                (making / MARK).write_text(_fingerprint(context), encoding="ascii")
            _make_missing(context, making)
            making.replace(target)
        records = find_studies(target, self.given, self.name, None)
        return Gathered(target, tuple(record.model_copy(update={"synthetic": True}) for record in records))


def _make_missing(context: Context, folder: Path) -> None:
    """Make the studies that are not there, several at a time; each appears at once."""
    from slicewise.studies.phantom import write_phantom

    size, lock, made = _size(context), threading.Lock(), 0

    def make(index: int) -> None:
        nonlocal made
        done, part = folder / f".done-{index}", folder / f".part-{index}"
        if not done.exists():
            shutil.rmtree(part, ignore_errors=True)
            study = write_phantom(index, size, context.seed, part)
            shutil.rmtree(folder / study.name, ignore_errors=True)
            study.replace(folder / study.name)
            part.rmdir()
            done.touch()
        with lock:
            made += 1
            if context.progress is not None:
                context.progress("phantom", made, size.n_studies)

    workers = min(context.config.workers, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers, thread_name_prefix="phantom") as pool:
        list(pool.map(make, range(size.n_studies)))


def _fingerprint(context: Context) -> str:
    return sha256_json([_size(context).model_dump(mode="json"), context.seed, _code_digest()])


def _is_made(context: Context) -> bool:
    return _is_of(context.stage / "files", context)


def _is_of(folder: Path, context: Context) -> bool:
    mark = folder / MARK
    return mark.is_file() and mark.read_text(encoding="ascii") == _fingerprint(context)


def _size(context: Context) -> PhantomConfig:
    size, limit = context.config.phantom, context.config.max_studies
    return size.model_copy(update={"n_studies": min(size.n_studies, limit or size.n_studies)})


def _code_digest() -> str:
    """Of the modules beside the phantoms' own: phantoms of an older code are made again."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parents[1].glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
