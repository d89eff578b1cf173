"""The slice store's format."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_run import SmallData

from slicewise.errors import StoreError
from slicewise.slices.store import INDEX, SliceStore, StoreIndex


@pytest.fixture
def copy(small: SmallData, tmp_path: Path) -> Path:
    """A copy of the small store that a test may damage."""
    return Path(shutil.copytree(small.store.folder, tmp_path / "store"))


def change_index(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    index = json.loads((folder / INDEX).read_text())
    change(index)
    (folder / INDEX).write_text(json.dumps(index))


def test_the_index_reads_back_the_same(small: SmallData) -> None:
    index = small.store.index
    assert StoreIndex.model_validate_json(index.model_dump_json()) == index
    assert SliceStore(small.store.folder).index == index
    assert index.data_digest == small.dataset.digest


def test_arrays_are_mapped_not_read(small: SmallData) -> None:
    for key, study in small.store.studies.items():
        images, labels = small.store.images(key), small.store.labels(key)
        assert isinstance(images, np.memmap)
        assert (images.dtype, images.shape) == (np.float16, (len(study.slices), 4, 48, 48))
        assert (labels.dtype, labels.shape) == (np.uint8, (len(study.slices), 48, 48))
        assert not images.flags.writeable


@pytest.mark.parametrize("name", ["image.npy", "label.npy"])
@pytest.mark.parametrize("at", [0, 7, 1000, -1])
def test_verify_finds_a_flipped_bit(copy: Path, name: str, at: int) -> None:
    store = SliceStore(copy)
    store.verify()
    path = copy / "studies" / "Phantom_0003" / name
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    with pytest.raises(StoreError, match=rf"Phantom_0003/{name} is missing or was changed"):
        store.verify()


def test_verify_finds_a_missing_file(copy: Path) -> None:
    (copy / "studies" / "Phantom_0005" / "label.npy").unlink()
    with pytest.raises(StoreError, match="Phantom_0005"):
        SliceStore(copy).verify()
    with pytest.raises(StoreError, match="Phantom_0005"):
        SliceStore(copy).labels("Phantom_0005")


@pytest.mark.parametrize(
    "change",
    [
        lambda index: index.update(version=2),
        lambda index: index.update(format="other"),
        lambda index: index.update(surprise=1),
        lambda index: index.pop("studies"),
        lambda index: index["preprocessing"].update(size=50),
    ],
)
def test_another_format_is_refused(copy: Path, change: Callable[[dict[str, Any]], object]) -> None:
    change_index(copy, change)
    with pytest.raises(StoreError, match="damaged or of another version") as caught:
        SliceStore(copy)
    assert "preprocess" in caught.value.cure


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe"])
def test_a_damaged_index_is_named(copy: Path, content: bytes) -> None:
    (copy / INDEX).write_bytes(content)
    with pytest.raises(StoreError, match=r"store\.json is damaged"):
        SliceStore(copy)


def test_no_store_and_a_short_file(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is not a slice store"):
        SliceStore(tmp_path / "nowhere")
    change_index(copy, lambda index: index["studies"][0]["slices"].pop())
    with pytest.raises(StoreError, match="the index says otherwise"):
        SliceStore(copy).images("Phantom_0000")
    (copy / "studies" / "Phantom_0001" / "image.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(StoreError, match=r"Phantom_0001/image\.npy is missing or damaged"):
        SliceStore(copy).images("Phantom_0001")
