"""The ``preprocess`` stage: from a dataset to a store, whatever some studies are like."""

from __future__ import annotations

import gzip
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from small_run import PREPROCESS, SEED, SmallData

from slicewise.config import DownloadConfig, PreprocessConfig, SliceConfig
from slicewise.errors import StoreError
from slicewise.slices.build import build_store
from slicewise.slices.crop import prepare_labels
from slicewise.slices.prepare import prepare_study
from slicewise.slices.selection import select_slices
from slicewise.slices.store import INDEX, StudyEntry
from slicewise.slices.transform import prepare_slice
from slicewise.studies.acquire import acquire
from slicewise.studies.reading import read_study


def some_studies(small: SmallData, folder: Path, names: list[str]) -> Path:
    """A source folder with copies of some of the phantom studies."""
    for name in names:
        shutil.copytree(small.dataset.root / "phantom" / name, folder / name)
    return folder


def dataset(source: Path, out: Path) -> Path:
    acquire([str(source)], out, DownloadConfig(), seed=0)
    return out


def test_the_store_holds_what_prepare_slice_makes(small: SmallData) -> None:
    """Every slice and label plane, byte for byte, from the raw study."""
    for record in small.dataset.records[:2]:
        study = read_study(record, small.dataset.root)
        entry = small.store.studies[record.study_id]
        planes = zip(entry.slices, small.store.images(entry.key), small.store.labels(entry.key), strict=True)
        for made, image, labels in planes:
            fresh = prepare_slice(study.image[:, made.z], study.modalities, PREPROCESS.slice, study.spacing_mm[1:])
            assert fresh.image.tobytes() == image.tobytes()
            again = prepare_labels(study.labels[made.z], fresh.geometry, PREPROCESS.slice.size)
            assert again.tobytes() == labels.tobytes()


def test_classes_follow_the_masks(small: SmallData) -> None:
    """A slice with a few tumour pixels has no class: neither tumour nor healthy."""
    seen = set()
    for record in small.dataset.records:
        study = read_study(record, small.dataset.root)
        for entry in small.store.studies[record.study_id].slices:
            pixels = int((study.labels[entry.z] > 0).sum())
            expected = None if 0 < pixels < PREPROCESS.min_tumour_pixels else pixels > 0
            assert entry.tumour is expected
            seen.add(entry.tumour)
    assert {True, False} <= seen


def test_a_study_is_prepared_alike_whatever_is_beside_it(small: SmallData, tmp_path: Path) -> None:
    record = small.dataset.records[3]
    alone = prepare_study(record, small.dataset.root, tmp_path, PREPROCESS, SEED)
    assert alone == small.store.studies[record.study_id]


def test_selection_is_seeded_and_keeps_the_proportion() -> None:
    tumour = [True] * 30 + [False] * 50 + [None] * 10
    config = PreprocessConfig(train_slices=20, tumour_share=0.6)
    chosen = select_slices(tumour, config, 0, "a")
    assert (sum(chosen[:30]), sum(chosen[30:80]), sum(chosen[80:])) == (12, 8, 0)
    assert chosen == select_slices(tumour, config, 0, "a")
    assert chosen != select_slices(tumour, config, 1, "a")
    assert chosen != select_slices(tumour, config, 0, "b")


@pytest.mark.parametrize(
    ("n_tumour", "n_healthy", "taken"),
    [(3, 50, (3, 17)), (50, 2, (18, 2)), (4, 5, (4, 5)), (0, 40, (0, 20)), (0, 0, (0, 0))],
)
def test_selection_makes_up_for_what_a_study_lacks(n_tumour: int, n_healthy: int, taken: tuple[int, int]) -> None:
    config = PreprocessConfig(train_slices=20, tumour_share=0.6)
    chosen = select_slices([True] * n_tumour + [False] * n_healthy, config, 0, "a")
    assert (sum(chosen[:n_tumour]), sum(chosen[n_tumour:])) == taken


def test_a_truncated_study_is_left_out_by_name(small: SmallData, tmp_path: Path) -> None:
    """The others go on; beyond the share allowed the stage fails and the store of before stays."""
    source = some_studies(small, tmp_path / "source", ["Phantom_0000", "Phantom_0001", "Phantom_0002"])
    broken = source / "Phantom_0001" / "Phantom_0001_t2.nii.gz"
    broken.write_bytes(broken.read_bytes()[:-500])
    data, out = dataset(source, tmp_path / "data"), tmp_path / "store"
    config = PREPROCESS.model_copy(update={"max_failed_share": 0.4})
    store = build_store(data, out, config, SEED)
    assert sorted(store.studies) == ["Phantom_0000", "Phantom_0002"]
    (failure,) = store.index.failures
    assert failure.study_id == "Phantom_0001"
    assert "Phantom_0001_t2.nii.gz" in failure.reason
    with pytest.raises(StoreError, match=r"1 of 3 studies .*Phantom_0001_t2\.nii\.gz.*max_failed_share"):
        build_store(data, out, config.model_copy(update={"max_failed_share": 0.3}), SEED)
    store.verify()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "source", "store"]


def open_files(pid: int) -> Iterator[str]:
    try:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            yield str(link.readlink())
    except OSError:
        return  # the process or the file is gone


@contextmanager
def killer(name: str) -> Iterator[list[int]]:
    """Kill any child process that opens the file ``name``, as the kernel's out-of-memory killer would."""
    done, killed = threading.Event(), []

    def watch() -> None:
        while not done.wait(0.005):
            words = (Path("/proc/self/task") / str(threading.main_thread().native_id) / "children").read_text()
            for pid in (int(word) for word in words.split()):
                if any(path.endswith(name) for path in open_files(pid)):
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield killed
    finally:
        done.set()
        thread.join()


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_study_on_which_workers_die_costs_only_itself(small: SmallData, tmp_path: Path) -> None:
    """A file of 300 000 empty gzip members takes seconds to read and no memory: time to kill its reader."""
    source = some_studies(small, tmp_path / "source", ["Phantom_0000", "Phantom_0001"])
    deadly = source / "Phantom_0000" / "Phantom_0000_flair.nii.gz"
    deadly.write_bytes(gzip.compress(b"") * 300_000)
    data = dataset(source, tmp_path / "data")
    config = PREPROCESS.model_copy(update={"max_failed_share": 0.6})
    with killer("Phantom_0000_flair.nii.gz") as killed:
        store = build_store(data, tmp_path / "store", config, SEED)
    assert len(set(killed)) == 2
    assert [failure.study_id for failure in store.index.failures] == ["Phantom_0000"]
    assert "the worker died on it" in store.index.failures[0].reason
    assert list(store.studies) == ["Phantom_0001"]
    store.verify()


def test_a_study_can_be_tried_again(small: SmallData, tmp_path: Path) -> None:
    """When a pool breaks, its other workers are ended too, with studies half written; these are tried again."""
    record = small.dataset.records[0]
    first = prepare_study(record, small.dataset.root, tmp_path, PREPROCESS, SEED)
    assert prepare_study(record, small.dataset.root, tmp_path, PREPROCESS, SEED) == first


def test_names_that_differ_in_a_space_are_two_studies(small: SmallData, tmp_path: Path) -> None:
    """Picture sets have such names: ``Y 1.jpg`` beside ``Y_1.jpg``."""
    record = small.dataset.records[0]
    entries = [
        prepare_study(record.model_copy(update={"study_id": name}), small.dataset.root, tmp_path, PREPROCESS, SEED)
        for name in ("a b", "a_b")
    ]
    assert len({entry.key for entry in entries if isinstance(entry, StudyEntry)}) == 2


def test_a_model_of_fewer_modalities_takes_those_it_knows(small: SmallData, tmp_path: Path) -> None:
    config = PREPROCESS.model_copy(update={"slice": SliceConfig(size=48, modalities=("flair", "t1ce"))})
    entry = prepare_study(small.dataset.records[0], small.dataset.root, tmp_path, config, SEED)
    assert isinstance(entry, StudyEntry)
    assert np.load(tmp_path / "studies" / entry.key / "image.npy").shape[1] == 2


def test_no_store_appears_when_nothing_is_usable(small: SmallData, tmp_path: Path) -> None:
    source = some_studies(small, tmp_path / "source", ["Phantom_0000"])
    (source / "Phantom_0000" / "Phantom_0000_seg.nii.gz").write_bytes(b"")
    data = dataset(source, tmp_path / "data")
    config = PREPROCESS.model_copy(update={"max_failed_share": 1.0})
    with pytest.raises(StoreError, match="Phantom_0000_seg"):
        build_store(data, tmp_path / "store", config, SEED)
    assert not (tmp_path / "store" / INDEX).exists()
