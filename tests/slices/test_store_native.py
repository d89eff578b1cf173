"""``native.zz``: a study's head and labels in its own voxels."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from store_samples import QUALITY, make_store, native

from slicewise.config import DownloadConfig, PreprocessConfig, validate
from slicewise.errors import StoreError
from slicewise.slices.build import build_store
from slicewise.slices.crop import prepare_labels
from slicewise.slices.store import SliceStore
from slicewise.slices.store_check import find_faults
from slicewise.slices.store_native import join_native, pack_native, split_native, unpack_native
from slicewise.studies.acquire import acquire
from slicewise.studies.dataset import load_dataset
from slicewise.studies.reading import read_study

LABELS = np.array([0, 1, 2, 4], dtype=np.uint8)


@given(seed=st.integers(0, 2**32 - 1), shape=st.tuples(*[st.integers(1, 7)] * 3))
def test_round_trip(seed: int, shape: tuple[int, int, int], tmp_path_factory: pytest.TempPathFactory) -> None:
    rng = np.random.default_rng(seed)
    head, labels = rng.random(shape) < 0.5, rng.choice(LABELS, size=shape)
    path = tmp_path_factory.mktemp("native") / "native.zz"
    path.write_bytes(pack_native(join_native(head, labels)))
    same_head, same_labels = split_native(unpack_native(path, shape))
    assert np.array_equal(head, same_head)
    assert np.array_equal(labels, same_labels)


def test_without_mask() -> None:
    head = np.ones((1, 2, 3), dtype=bool)
    assert not split_native(join_native(head, None))[1].any()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "does not hold"),
        (b"not zlib", "is damaged"),
        (zlib.compress(bytes(5)), "does not hold"),
        (zlib.compress(bytes(7)), "does not hold"),
        (zlib.compress(bytes(6))[:-3], "does not hold"),
        (zlib.compress(bytes(10**8), 9), "does not hold"),
    ],
    ids=["empty", "other", "short", "long", "truncated", "bomb"],
)
def test_damaged(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "native.zz"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=message) as caught:
        unpack_native(path, (1, 2, 3))
    assert "native.zz" in str(caught.value)


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"native\.zz is missing"):
        unpack_native(tmp_path / "native.zz", (1, 2, 3))


def test_verify_finds_a_changed_file(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", ["a", "b"])
    path = store.folder / "studies" / "a" / "native.zz"
    assert find_faults(store.folder, store.index) == []
    path.write_bytes(pack_native(np.zeros(QUALITY.frame, dtype=np.uint8)))
    (fault,) = find_faults(store.folder, store.index)
    assert fault.path == path
    assert not np.array_equal(native(0), np.zeros(QUALITY.frame))


def test_holds_the_mask_as_it_was_given(tmp_path: Path) -> None:
    dataset = tmp_path / "dataset"
    acquire(["phantom"], dataset, validate(DownloadConfig, {"phantom": {"n_studies": 3}}), 3)
    config = validate(PreprocessConfig, {"slice": {"size": 64}, "workers": 1})
    build_store(dataset, tmp_path / "store", config, 3)
    store, data = SliceStore(tmp_path / "store"), load_dataset(dataset)
    for record in data.records:
        study = read_study(record, data.root)
        (entry,) = (entry for entry in store.studies.values() if entry.study_id == record.study_id)
        head, labels = store.native(entry.key)
        assert study.labels is not None
        assert np.array_equal(labels, study.labels)
        assert head.any()
        for row, kept in enumerate(entry.slices):
            again = prepare_labels(labels[kept.z], store.geometry(entry.key, row), 64)
            assert np.array_equal(again, store.labels(entry.key)[row])
