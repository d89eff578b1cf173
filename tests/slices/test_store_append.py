"""Adding studies to a store: nothing is lost and nothing half-done is seen, whoever is killed when."""

from __future__ import annotations

import multiprocessing
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from store_samples import (
    CONFIG,
    append_and_die,
    append_many,
    append_one,
    append_until_killed,
    entry,
    make_store,
    native,
    pixels,
    written,
)

from slicewise.config import SliceConfig
from slicewise.errors import StoreError
from slicewise.slices.store import INDEX, SliceStore, StudyFailure, append_studies, staging, write_study
from slicewise.slices.store_lock import LOCK, leftovers

# Forked, as starting one then takes milliseconds; they touch files and nothing else.
context = multiprocessing.get_context("fork")


def spare(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in leftovers(folder, SliceStore(folder).index)]


def test_appended_studies_are_there_and_the_old_ones_too(tmp_path: Path) -> None:
    old = make_store(tmp_path / "store")
    with staging(old.folder) as staged:
        entries = [written(staged, name, seed) for seed, name in enumerate(["e", "d"], start=10)]
        failure = StudyFailure(study_id="f", reason="unreadable")
        append_studies(old.folder, staged, entries, CONFIG, "second", [failure])
        assert not (staged / "studies" / "d").exists()
    new = SliceStore(old.folder)
    assert list(new.studies) == ["a", "b", "c", "d", "e"]
    assert new.index.studies[:3] == old.index.studies
    assert np.array_equal(new.images("e"), pixels(10)[0])
    assert np.array_equal(new.labels("d"), pixels(11)[1])
    assert new.index.failures == (failure,)
    assert new.index.data_digest not in {"first", "second"}
    new.verify()
    assert spare(old.folder) == []
    assert sorted(path.name for path in old.folder.iterdir()) == [INDEX, LOCK, "studies"]


def test_a_store_opened_before_does_not_change(tmp_path: Path) -> None:
    old = make_store(tmp_path / "store")
    append_one(old.folder, "d")
    assert list(old.studies) == ["a", "b", "c"]
    assert np.array_equal(old.images("c"), pixels(2)[0])


def test_other_preprocessing_is_refused(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    with staging(store.folder) as staged, pytest.raises(StoreError, match="other preprocessing: normalisation, clip"):
        other = SliceConfig(size=32, modalities=("flair", "t1"), clip=4.0, normalisation="minmax")
        append_studies(store.folder, staged, [written(staged, "d", 1)], other, "second")
    assert SliceStore(store.folder).index == store.index


@pytest.mark.parametrize("names", [["d", "b"], ["d", "d"]])
def test_a_study_that_is_there_already_is_refused(tmp_path: Path, names: list[str]) -> None:
    store = make_store(tmp_path / "store")
    with staging(store.folder) as staged, pytest.raises(StoreError, match=f"has study {names[1]} already"):
        append_studies(store.folder, staged, [written(staged, name, 1) for name in names], CONFIG, "second")
    assert spare(store.folder) == []
    SliceStore(store.folder).verify()


@pytest.mark.parametrize(("count", "missing"), [(4, True), (3, False)])
def test_a_study_that_was_not_staged_whole_is_refused(tmp_path: Path, count: int, missing: bool) -> None:
    """All or nothing: the good study beside it is not added either."""
    store = make_store(tmp_path / "store")
    with staging(store.folder) as staged, pytest.raises(StoreError, match="studies/e/"):
        good = written(staged, "d", 1)
        if not missing:
            write_study(staged, "e", *pixels(2), native(2))
        append_studies(store.folder, staged, [good, entry("e", count)], CONFIG, "second")
    assert SliceStore(store.folder).index == store.index
    assert spare(store.folder) == []


def test_no_store_to_append_to(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is not a slice store"), staging(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_two_processes_append_at_once(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    names = [[f"{who}{at}" for at in range(12)] for who in ("x", "y", "z")]
    start = context.Barrier(len(names))
    workers = [context.Process(target=append_many, args=(store.folder, mine, start)) for mine in names]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert set(SliceStore(store.folder).studies) == {"a", "b", "c"}.union(*names)
    SliceStore(store.folder).verify()
    assert spare(store.folder) == []


def test_a_kill_at_every_single_call_to_the_file_system(tmp_path: Path) -> None:
    """Before each call in turn; the index is the old one or the new one, and the next append cleans up."""
    template = make_store(tmp_path / "template").folder
    outcomes, dirty = [], 0
    for moment in range(1, 500):
        folder = Path(shutil.copytree(template, tmp_path / f"store{moment}"))
        worker = context.Process(target=append_and_die, args=(folder, "d", moment))
        worker.start()
        worker.join()
        store = SliceStore(folder)
        store.verify()
        assert [name for name in store.studies if name != "d"] == ["a", "b", "c"]
        outcomes.append("d" in store.studies)
        dirty += bool(spare(folder))
        append_one(folder, "e")
        assert spare(folder) == []
        SliceStore(folder).verify()
        shutil.rmtree(folder)
        if worker.exitcode == 0:
            break
        assert worker.exitcode == -signal.SIGKILL
    assert worker.exitcode == 0
    # Old, old, … new, new: the switch happens once. Most of the kills leave something to sweep.
    assert outcomes == sorted(outcomes)
    assert {False, True} == set(outcomes)
    assert dirty > 10


def test_kills_from_outside(tmp_path: Path) -> None:
    """A process that appends without end is killed whenever the scheduler lets us."""
    folder = make_store(tmp_path / "store").folder
    for _ in range(8):
        started = context.Semaphore(0)
        worker = context.Process(target=append_until_killed, args=(folder, started))
        worker.start()
        started.acquire()
        before = len(SliceStore(folder).studies)
        worker.kill()
        worker.join()
        store = SliceStore(folder)
        assert len(store.studies) >= before
        store.verify()
    append_one(folder, "last")
    assert spare(folder) == []


def test_an_append_leaves_anothers_staging_and_strangers_files_alone(tmp_path: Path) -> None:
    folder = make_store(tmp_path / "store").folder
    (folder / "notes.txt").write_text("mine")
    (folder / "studies" / "a" / "mask.png").write_bytes(b"mine")
    (folder / ".staging-dead" / "studies").mkdir(parents=True)
    (folder / "studies" / "orphan").mkdir()
    (folder / "studies" / ".d.tmp").mkdir()
    assert spare(folder) == [
        ".staging-dead", "notes.txt", "studies/.d.tmp", "studies/a/mask.png", "studies/orphan"
    ]  # fmt: skip
    with staging(folder) as staged:
        mine = written(staged, "mine", 5)
        append_one(folder, "theirs")
        append_studies(folder, staged, [mine], CONFIG, "second")
    assert spare(folder) == ["notes.txt", "studies/a/mask.png"]
    assert list(SliceStore(folder).studies) == ["a", "b", "c", "mine", "theirs"]
