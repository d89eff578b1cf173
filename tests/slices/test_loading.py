"""Fetching from the store, and making batches ready ahead."""

from __future__ import annotations

import functools
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from small_run import SmallData

from slicewise.config import AugmentConfig
from slicewise.errors import StoreError
from slicewise.slices.augment import augment
from slicewise.slices.batches import Batch, SliceData
from slicewise.slices.loading import AHEAD, THREAD_NAME, ready_ahead
from slicewise.slices.regions import region_maps
from slicewise.slices.store import SliceStore
from slicewise.training.stage import train_stage


def loading_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(THREAD_NAME)]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    assert not loading_threads()
    yield
    assert not loading_threads()


def numbers(count: int, log: list[int] | None = None) -> list[Callable[[], int]]:
    def job(number: int) -> int:
        if log is not None:
            log.append(number)
        return number

    return [functools.partial(job, number) for number in range(count)]


@pytest.mark.parametrize("ahead", [0, 1, 2, 7])
@pytest.mark.parametrize("count", [0, 1, 2, 30])
def test_results_come_whole_and_in_order(ahead: int, count: int) -> None:
    with ready_ahead(numbers(count), ahead) as ready:
        assert list(ready) == list(range(count))
        assert ready.waited >= 0


@pytest.mark.parametrize("ahead", [0, 1, 2])
def test_an_exception_comes_where_its_result_would_have(ahead: int) -> None:
    def fail() -> int:
        raise OSError("disk gone")

    seen = []
    jobs = [*numbers(3), fail, *numbers(2)]
    with pytest.raises(OSError, match="disk gone"), ready_ahead(jobs, ahead) as ready:
        for value in ready:
            seen.append(value)  # noqa: PERF402
    assert seen == [0, 1, 2]


def test_a_reader_that_fails_leaves_no_thread() -> None:
    begun: list[int] = []
    with pytest.raises(ZeroDivisionError), ready_ahead(numbers(100, begun)) as ready:
        for value in ready:
            assert value == 0
            raise ZeroDivisionError
    assert not loading_threads()
    assert len(begun) <= 1 + AHEAD


def test_a_reader_that_stops_early_leaves_no_thread() -> None:
    with ready_ahead(numbers(100)) as ready:
        assert next(iter(ready)) == 0
        assert len(loading_threads()) == 1
    assert not loading_threads()


@pytest.mark.parametrize("ahead", [1, 2, 5])
def test_no_more_than_told_are_made_ahead(ahead: int) -> None:
    """Bounded memory: the thread never gets further than ``ahead`` beyond what the reader has taken."""
    begun: list[int] = []
    with ready_ahead(numbers(40, begun), ahead) as ready:
        for taken, _ in enumerate(ready, start=1):
            assert len(begun) <= taken + ahead


def test_jobs_run_beside_the_reader_and_not_in_it() -> None:
    """The second job ends while the reader still holds the first result."""
    done = threading.Event()
    names: list[str] = []

    def second() -> None:
        names.append(threading.current_thread().name)
        done.set()

    with ready_ahead([lambda: None, second]) as ready:
        next(iter(ready))
        assert done.wait(timeout=60)
    assert names[0].startswith(THREAD_NAME)


def jobs_of(data: SliceData) -> list[Callable[[], Batch]]:
    def job(step: int) -> Batch:
        batch = data.fetch(range(step * 5, step * 5 + 5))
        return augment(batch, AugmentConfig(preset="aggressive"), torch.Generator().manual_seed(step))

    return [functools.partial(job, step) for step in range(len(data) // 5)]


def test_batches_are_the_same_with_the_thread_and_without(small: SmallData) -> None:
    torch.set_num_threads(1)  # sums differ in their last bits with the number of threads, which other tests change
    data = SliceData(small.store, small.split.train, selected_only=True)
    with ready_ahead(jobs_of(data), 0) as alone:
        one = list(alone)
    with ready_ahead(jobs_of(data)) as beside:
        torch.rand(5)
        two = list(beside)
    assert len(one) > 3
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a.image, b.image, rtol=0, atol=0)
        torch.testing.assert_close(a.regions, b.regions, rtol=0, atol=0)


def test_a_store_damaged_in_the_middle_fails_the_stage_by_name(small: SmallData, tmp_path: Path) -> None:
    """An error in the thread reaches the caller as it is, and no thread stays behind."""
    shutil.copytree(small.folder / "store", tmp_path / "store")
    key = small.split.train[0]
    (tmp_path / "store" / "studies" / key / "image.npy").write_bytes(b"\x93NUMPY")
    store = SliceStore(tmp_path / "store")
    data = SliceData(store, small.split.train, selected_only=True)
    with pytest.raises(StoreError, match=key), ready_ahead(jobs_of(data)) as ready:
        list(ready)


def test_a_stage_records_how_long_it_waited_for_data(small: SmallData, tmp_path: Path) -> None:
    record = train_stage(small.job("seg_warmup", tmp_path / "checkpoints"), tmp_path / "out")
    assert all(0 <= row["data_wait"] < 1 for row in record["history"])


# Fetching.


def test_a_batch_holds_what_the_store_holds(small: SmallData) -> None:
    store = small.store
    data = SliceData(store, [*small.split.test, *small.split.val], selected_only=False)
    indices = [len(data) - 1, 0, 3, len(data) // 2, 0]
    batch = data.fetch(indices)
    for at, index in enumerate(indices):
        position, row = data.refs[index]
        key = data.keys[position]
        entry = store.studies[key].slices[row]
        assert np.array_equal(batch.image[at].numpy(), store.images(key)[row].astype(np.float32))
        assert np.array_equal(batch.regions[at].numpy(), region_maps(np.asarray(store.labels(key)[row])))
        assert batch.study[at] == position
        assert bool(batch.tumour_known[at]) == (entry.tumour is not None)
        assert bool(batch.tumour[at]) == bool(entry.tumour)
    assert batch.known.all()
    assert batch.image.dtype == batch.regions.dtype == batch.tumour.dtype == torch.float32


def test_slices_are_listed_by_study_and_row(small: SmallData) -> None:
    for selected_only in (True, False):
        data = SliceData(small.store, small.split.train, selected_only=selected_only)
        expected = [
            (position, row, entry.tumour)
            for position, key in enumerate(small.split.train)
            for row, entry in enumerate(small.store.studies[key].slices)
            if entry.selected or not selected_only
        ]
        assert data.refs == [(position, row) for position, row, _ in expected]
        assert data.tumour() == [tumour for _, _, tumour in expected]
        assert len(data) == len(expected)


def test_no_studies_are_no_slices(small: SmallData) -> None:
    data = SliceData(small.store, [], selected_only=False)
    assert len(data) == 0
    assert data.refs == []
    assert not data.has_masks
    assert data.known_regions() == []
    assert list(data.batches([], 4)) == []


def test_regions_that_are_unknown_are_zero(small: SmallData) -> None:
    key = next(key for key in small.store.studies if small.store.studies[key].has_tumour)
    entry = small.store.studies[key].model_copy(update={"known_regions": ("WT",)})
    store = SliceStore(small.store.folder)
    store.studies[key] = entry
    batch = SliceData(store, [key], selected_only=False).fetch(range(8))
    assert batch.known.tolist() == [[1.0, 0.0, 0.0]] * 8
    assert batch.regions[:, 0].any()
    assert not batch.regions[:, 1:].any()
