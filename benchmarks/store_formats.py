"""Formats for the slice store, side by side: memory-mapped npy, blosc2, zarr and compressed npz.

    pip install blosc2 zarr
    python benchmarks/store_formats.py --data STORE --data STORE96 --out benchmarks/results/store_formats

``--data`` takes slice stores made by ``slicewise preprocess`` (repeatable, one table each); without it phantoms are
made. Needs Linux. Every candidate holds the same float16 images ``[n, C, size, size]`` and reads the same random
slices; rounds are interleaved, so that a busy machine is busy for all, and the median over the rounds counts
(``…_fastest``: the fastest). A read gives a slice in memory of its own. Warm: handles are open and the files in the
page cache. Cold: the files are dropped from the page cache (``posix_fadvise``) and opened anew for each read.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, ZstdCodec

from slicewise.config import DownloadConfig, PhantomConfig, PreprocessConfig
from slicewise.slices.build import build_store
from slicewise.slices.store import SliceStore, StoreIndex, write_index, write_study
from slicewise.slices.store_arrays import open_array, will_need
from slicewise.slices.store_index import IMAGE
from slicewise.studies.acquire import acquire

Images = NDArray[np.float16]
DATE = "2026-11-24"
MANY = 1000
BATCH = 16
BASELINES = ("npz per study", "npz per slice")


@dataclass(frozen=True)
class Format:
    """One way to keep a study: how to write it, open it, and read one slice of what was opened."""

    name: str
    write: Callable[[Path, Images], object]
    open: Callable[[Path], Any]
    read: Callable[[Any, int], Images]
    slow: bool = False


def write_npy(path: Path, images: Images) -> None:
    write_study(path, "s", images, None, np.zeros((1, 1, 1), dtype=np.uint8))
    (path / "shape.json").write_text(json.dumps(images.shape))


def open_npy(path: Path) -> np.memmap[Any, Any]:
    """As ``SliceStore`` does, which has the shape from its index."""
    shape = tuple(json.loads((path / "shape.json").read_text()))
    return open_array(path / "studies" / "s" / IMAGE, "<f2", shape)


def read_npy(opened: np.memmap[Any, Any], row: int) -> Images:
    will_need(opened, row)
    return np.array(opened[row])


def write_blosc2(path: Path, images: Images, codec: blosc2.Codec) -> None:
    path.mkdir(parents=True)
    cparams = {"codec": codec, "clevel": 5, "filters": [blosc2.Filter.BITSHUFFLE], "nthreads": 1}
    chunk = (1, *images.shape[1:])
    blosc2.asarray(images, urlpath=str(path / "image.b2nd"), chunks=chunk, blocks=chunk, cparams=cparams)


def write_zarr(path: Path, images: Images, codec: Any, sharded: bool) -> None:
    chunk = (1, *images.shape[1:])
    array = zarr.create_array(
        str(path / "image.zarr"),
        shape=images.shape,
        dtype=images.dtype,
        chunks=chunk,
        shards=images.shape if sharded else None,
        compressors=codec,
    )
    array[:] = images


def write_npz(path: Path, images: Images) -> None:
    path.mkdir(parents=True)
    np.savez_compressed(path / "image.npz", image=images)


def write_npz_slices(path: Path, images: Images) -> None:
    path.mkdir(parents=True)
    for row, image in enumerate(images):
        np.savez_compressed(path / f"{row:04}.npz", image=image)


def read_npz_slice(path: Path, row: int) -> Images:
    with np.load(path / f"{row:04}.npz", allow_pickle=False) as arrays:
        return np.array(arrays["image"])


FORMATS = (
    Format("npy, memory-mapped", write_npy, open_npy, read_npy),
    *(
        Format(
            f"blosc2 {codec.name.lower()}",
            partial(write_blosc2, codec=codec),
            lambda path: blosc2.open(str(path / "image.b2nd"), mode="r"),
            lambda opened, row: opened[row],
        )
        for codec in (blosc2.Codec.LZ4, blosc2.Codec.ZSTD)
    ),
    *(
        Format(
            f"zarr {name}",
            partial(write_zarr, codec=codec, sharded=sharded),
            lambda path: zarr.open_array(str(path / "image.zarr"), mode="r"),
            lambda opened, row: np.asarray(opened[row]),
        )
        for name, codec, sharded in (
            ("zstd", ZstdCodec(level=3), False),
            ("blosc", BloscCodec(cname="zstd", clevel=5, shuffle="bitshuffle"), False),
            ("zstd, one file", ZstdCodec(level=3), True),
        )
    ),
    Format(
        "npz per study",
        write_npz,
        lambda path: np.load(path / "image.npz", allow_pickle=False),
        lambda opened, row: np.array(opened["image"][row]),
        slow=True,
    ),
    Format("npz per slice", write_npz_slices, lambda path: path, read_npz_slice),
)


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def files(path: Path) -> Iterator[Path]:
    yield from (file for file in path.rglob("*") if file.is_file())


def drop_from_cache(path: Path) -> None:
    for file in files(path):
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def open_many(form: Format, paths: list[Path]) -> None:
    """Open 1,000 studies one after the other, over and over the few that there are."""
    for at in range(MANY):
        form.open(paths[at % len(paths)])


def random_slices(counts: list[int], size: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    return [(int(at), int(rng.integers(counts[at]))) for at in rng.integers(len(counts), size=size)]


def batch_seconds(form: Format, opened: list[Any], counts: list[int], rng: np.random.Generator) -> float:
    """A batch of 16; of the slow format a part of one, scaled."""
    size = 2 if form.slow else BATCH

    def stack(picks: list[tuple[int, int]]) -> Images:
        return np.stack([form.read(opened[at], row) for at, row in picks])

    seconds = [timed(partial(stack, random_slices(counts, size, rng))) for _ in range(2 if form.slow else 9)]
    return statistics.median(seconds) * BATCH / size


def measure(form: Format, folder: Path, studies: list[Images], rng: np.random.Generator) -> dict[str, float]:
    """One round of one candidate."""
    shutil.rmtree(folder, ignore_errors=True)
    paths = [folder / str(at) for at in range(len(studies))]
    seconds = [timed(partial(form.write, path, images)) for path, images in zip(paths, studies, strict=True)]
    result = {
        "write_s_per_study": statistics.mean(seconds),
        "bytes": sum(file.stat().st_size for file in files(folder)),
        "open_1000_s": timed(partial(open_many, form, paths)),
    }
    assert np.array_equal(form.read(form.open(paths[0]), 5), studies[0][5])
    counts = [len(images) for images in studies]
    picks = random_slices(counts, 3 if form.slow else 64, rng)
    result |= warm(form, paths, picks, counts, rng)
    result["read_slice_cold_s"] = statistics.median(cold(form, paths[at], row) for at, row in picks[:8])
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return result | pool.apply(in_another_process, (FORMATS.index(form), paths, picks))


def warm(
    form: Format, paths: list[Path], picks: list[tuple[int, int]], counts: list[int], rng: np.random.Generator
) -> dict[str, float]:
    for path in paths:
        for file in files(path):
            file.read_bytes()
    opened = [form.open(path) for path in paths]
    singles = [timed(partial(form.read, opened[at], row)) for at, row in picks]
    return {
        "read_slice_s": statistics.median(singles),
        "read_batch_16_s": batch_seconds(form, opened, counts, rng),
    }


def cold(form: Format, path: Path, row: int) -> float:
    drop_from_cache(path)
    return timed(lambda: form.read(form.open(path), row))


def in_another_process(which: int, paths: list[Path], picks: list[tuple[int, int]]) -> dict[str, float]:
    """What a loader's worker sees: opens the studies itself, and reads."""
    form = FORMATS[which]
    form.read(form.open(paths[0]), 0)  # what is imported or started at the first read does not count
    before = _reset_peak()
    opened = [form.open(path) for path in paths]
    singles = [timed(partial(form.read, opened[at], row)) for at, row in picks]
    return {"other_process_read_slice_s": statistics.median(singles), "peak_rss_mb": (_peak() - before) / 1024}


def _peak() -> int:
    line = next(row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith("VmHWM"))
    return int(line.split()[1])


def _reset_peak() -> int:
    """Forget the peak so far (Linux), and give what is held now, in kB."""
    Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def index_of_many(folder: Path, store: SliceStore) -> float:
    """Seconds to open a store whose index has 1,000 studies."""
    studies = list(store.studies.values())
    entries = tuple(studies[at % len(studies)].model_copy(update={"key": f"s{at}"}) for at in range(MANY))
    index = StoreIndex(**{**dict(store.index), "studies": entries})
    folder.mkdir()
    write_index(folder, index)
    return min(timed(lambda: SliceStore(folder)) for _ in range(15))


def run(store: SliceStore, scratch: Path, rounds: int, limit: int) -> dict[str, Any]:
    """All candidates on one store."""
    studies = [np.array(store.images(key)) for key in list(store.studies)[:limit]]
    raw = sum(images.nbytes for images in studies)
    found: dict[str, list[dict[str, float]]] = {form.name: [] for form in FORMATS}
    for turn in range(rounds):
        for form in FORMATS:
            found[form.name].append(measure(form, scratch / "now", studies, np.random.default_rng(turn)))
            print(turn, form.name, {k: round(v, 5) for k, v in found[form.name][-1].items()}, flush=True)
    table = {name: summary(values, raw, len(studies)) for name, values in found.items()}
    add_ratios(table)
    slices = [len(images) for images in studies]
    return {
        "studies": len(studies),
        "slices": sum(slices),
        "shape_of_a_slice": list(studies[0].shape[1:]),
        "raw_mb": round(raw / 1e6, 1),
        "store_with_1000_studies_opens_in_s": round(index_of_many(scratch / "many", store), 4),
        "formats": table,
    }


def add_ratios(table: dict[str, dict[str, Any]]) -> None:
    """How many times as fast a warm slice is read as from either kind of npz."""
    for row in table.values():
        for base in BASELINES:
            ratio = table[base]["read_slice_s"] / row["read_slice_s"]
            row[f"read_slice_times_{base.replace(' ', '_')}"] = float(f"{ratio:.3g}")


def summary(values: list[dict[str, float]], raw: int, studies: int) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name in values[0]:
        some = [value[name] for value in values]
        row[name] = float(f"{statistics.median(some):.4g}")
        if name not in ("bytes", "peak_rss_mb"):
            row[f"{name}_fastest"] = float(f"{min(some):.4g}")
    row["share_of_raw"] = round(row.pop("bytes") / raw, 3)
    for suffix in ("", "_fastest"):
        row[f"write_mb_per_s{suffix}"] = round(raw / 1e6 / studies / row[f"write_s_per_study{suffix}"])
    return row


def machine() -> dict[str, Any]:
    flags = next((row for row in Path("/proc/cpuinfo").read_text().splitlines() if row.startswith("flags")), "")
    wanted = ("avx2", "avx512bw", "f16c", "sha_ni")
    return {
        "cores": os.cpu_count(),
        "architecture": platform.machine(),
        "cpu_flags": [flag for flag in wanted if flag in flags.split()],
        "python": platform.python_version(),
        "numpy": np.__version__,
        "blosc2": blosc2.__version__,
        "zarr": zarr.__version__,
        "load_average": round(os.getloadavg()[0], 1),
    }


def phantoms(folder: Path) -> SliceStore:
    phantom = PhantomConfig(n_studies=4)
    acquire(["phantom"], folder / "dataset", DownloadConfig(phantom=phantom), 0)
    return build_store(folder / "dataset", folder / "store", PreprocessConfig(), 0)


COLUMNS = {
    "write_mb_per_s": "write MB/s",
    "write_mb_per_s_fastest": "fastest round",
    "share_of_raw": "size / raw",
    "open_1000_s": "open 1,000 s",
    "read_slice_s": "slice, warm ms",
    "read_slice_cold_s": "slice, cold ms",
    "read_batch_16_s": "batch of 16 ms",
    "other_process_read_slice_s": "other process ms",
    "peak_rss_mb": "peak RSS +MB",
    "read_slice_times_npz_per_study": "× npz per study",
    "read_slice_times_npz_per_slice": "× npz per slice",
}


def as_markdown(result: dict[str, Any]) -> str:
    facts = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in result["machine"].items())
    lines = ["# Formats for the slice store", "", f"{result['date']}, `{result['command']}`: {facts}.", ""]
    for table in result["tables"]:
        shape = " × ".join(map(str, table["shape_of_a_slice"]))
        lines += [
            f"## {table['studies']} studies, {table['slices']} slices of {shape} float16 ({table['raw_mb']} MB)",
            "",
            "A store of 1,000 studies in the chosen format opens, index and all, in "
            f"{table['store_with_1000_studies_opens_in_s']} s.",
            "",
            f"| format | {' | '.join(COLUMNS.values())} |",
            f"| --- {'| ---: ' * len(COLUMNS)}|",
        ]
        for name, row in table["formats"].items():
            cells = [row[key] * 1e3 if title.endswith("ms") else row[key] for key, title in COLUMNS.items()]
            lines.append(
                f"| {name} | {' | '.join(f'{cell:.3g}' if cell < 1000 else f'{cell:.0f}' for cell in cells)} |"
            )
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--data", type=Path, action="append", default=[], help="a slice store; repeatable")
    parser.add_argument("--out", type=Path, required=True, help="writes OUT.json and OUT.md")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--studies", type=int, default=4, help="how many studies of each store")
    parser.add_argument("--scratch", type=Path, help="a folder on the disk to be measured")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
        folder = Path(scratch)
        stores = [SliceStore(path) for path in args.data] or [phantoms(folder)]
        facts = machine()
        tables = []
        for at, store in enumerate(stores):
            (folder / str(at)).mkdir()
            tables.append(run(store, folder / str(at), args.rounds, args.studies))
    result = {
        "date": DATE,
        "command": f"python benchmarks/store_formats.py {'--data STORE ' * len(args.data)}--rounds {args.rounds}",
        "machine": facts,
        "tables": tables,
    }
    args.out.with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    args.out.with_suffix(".md").write_text(as_markdown(result), encoding="utf-8")


if __name__ == "__main__":
    main()
