"""Preprocessing in shards gives the store of a single process, to the last byte."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from small_run import PREPROCESS, SEED, SmallData

from slicewise.errors import StoreError, UsageError
from slicewise.slices.build import build_store
from slicewise.slices.shards import build_shard, merge_shards
from slicewise.slices.store_index import INDEX, STUDIES
from slicewise.slices.store_lock import leftovers

SHARDS = 3


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def shards(small: SmallData, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("shards")
    paths = [folder / str(at) for at in range(SHARDS)]
    for at, path in enumerate(paths):
        build_shard(small.folder / "dataset", path, PREPROCESS, SEED, at, SHARDS)
    return paths


def test_the_merged_store_is_the_unsharded_one(small: SmallData, shards: list[Path], tmp_path: Path) -> None:
    for order in (shards, shards[::-1]):
        merged = merge_shards(order, tmp_path / "store")
        assert content(merged.folder) == content(small.store.folder)
    assert leftovers(merged.folder, merged.index) == []


def test_a_shard_can_be_lost_and_made_again_while_the_store_stays(shards: list[Path], tmp_path: Path) -> None:
    merged = merge_shards(shards, tmp_path / "store")
    before = content(merged.folder)
    copies = [Path(shutil.copytree(shard, tmp_path / shard.name)) for shard in shards]
    again = merge_shards(copies, tmp_path / "again")
    shutil.rmtree(copies[0])
    again.verify()
    assert content(again.folder) == before


def test_more_shards_than_studies_leave_some_empty(small: SmallData, tmp_path: Path) -> None:
    dataset, count = small.folder / "dataset", len(small.dataset.records) + 1
    paths = [tmp_path / str(at) for at in (0, count - 1)]
    index = build_shard(dataset, paths[1], PREPROCESS, SEED, count - 1, count)
    assert index.studies == ()
    build_shard(dataset, paths[0], PREPROCESS, SEED, 0, count)
    assert len(merge_shards(paths, tmp_path / "store").studies) == 1
    with pytest.raises(StoreError, match="no study"):
        merge_shards(paths[1:], tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_failures_are_judged_over_all_shards(small: SmallData, tmp_path: Path) -> None:
    dataset = Path(shutil.copytree(small.folder / "dataset", tmp_path / "dataset"))
    broken = small.dataset.records[0]
    path = dataset / next(iter(broken.images.values()))[0]
    data = path.read_bytes()
    path.write_bytes(b"\0" * len(data))
    paths = [tmp_path / "0", tmp_path / "1"]
    for at, shard in enumerate(paths):
        build_shard(dataset, shard, PREPROCESS, SEED, at, 2)
    merged = merge_shards(paths, tmp_path / "store", 0.2)
    assert [failure.study_id for failure in merged.index.failures] == [broken.study_id]
    assert content(merged.folder) == content(build_store(dataset, tmp_path / "whole", PREPROCESS, SEED).folder)
    with pytest.raises(StoreError, match=r"1 of 8 studies are unusable, more than the share allowed \(10%\)"):
        merge_shards(paths, tmp_path / "strict", 0.1)


def test_what_does_not_belong_together_is_refused(small: SmallData, shards: list[Path], tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is in two shards"):
        merge_shards([*shards, shards[0]], tmp_path / "store")
    other = tmp_path / "other"
    build_shard(
        small.folder / "dataset",
        other,
        PREPROCESS.model_copy(update={"slice": PREPROCESS.slice.model_copy(update={"clip": 4.0})}),
        SEED,
        0,
        SHARDS,
    )
    with pytest.raises(StoreError, match="different settings"):
        merge_shards([other, *shards[1:]], tmp_path / "store")
    damaged = Path(shutil.copytree(shards[0], tmp_path / "damaged"))
    file = next((damaged / STUDIES).glob("*/image.npy"))
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(StoreError, match="bad"):
        merge_shards([damaged, *shards[1:]], tmp_path / "store")
    with pytest.raises(StoreError, match=f"no {INDEX}"):
        merge_shards([tmp_path / "nowhere"], tmp_path / "store")
    with pytest.raises(UsageError, match="no shard 3 of 3"):
        build_shard(small.folder / "dataset", tmp_path / "x", PREPROCESS, SEED, 3, 3)
    assert not (tmp_path / "store").exists()
