"""The slice store's format, read: whatever is in the files, the store opens or says what is wrong with which."""

from __future__ import annotations

import copy as copying
import dataclasses
import json
import mmap
import os
import pickle
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_run import SmallData
from store_samples import CONFIG, NO_DIGEST, entry, make_store, native, pixels, slices

from slicewise.config import SliceConfig
from slicewise.errors import StoreError
from slicewise.slices.quality import QualityRecord
from slicewise.slices.store import INDEX, SliceStore, SliceTable, StoreIndex, StudyEntry, write_index, write_study
from slicewise.slices.store_check import find_faults

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
MANY = 1000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A store of three studies that a test may damage; the second has no labels."""
    return make_store(tmp_path / "store").folder


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The index of 1,000 studies of 155 slices, and the files of the first."""
    folder = tmp_path_factory.mktemp("many")
    write_study(folder, "s0", *pixels(0, 155), native(0))
    studies = tuple(entry(f"s{at}", 155, at) for at in range(MANY))
    write_index(folder, StoreIndex(preprocessing=CONFIG, data_digest="d", sources=("test",), studies=studies))
    return folder


def change_index(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    index = json.loads((folder / INDEX).read_text())
    change(index)
    (folder / INDEX).write_text(json.dumps(index))


def test_a_built_store_reads_back_the_same(small: SmallData) -> None:
    index = small.store.index
    assert StoreIndex.model_validate_json(index.model_dump_json()) == index
    assert SliceStore(small.store.folder).index == index
    assert index.data_digest == small.dataset.digest
    small.store.verify()


def test_arrays_are_mapped_not_read(folder: Path) -> None:
    store = SliceStore(folder)
    images, labels = store.images("c"), store.labels("c")
    assert isinstance(images, np.memmap)
    assert isinstance(labels, np.memmap)
    assert np.array_equal(images, pixels(2)[0])
    assert np.array_equal(labels, pixels(2)[1])
    assert (images.dtype, labels.dtype) == (np.float16, np.uint8)
    assert not images.flags.writeable
    assert store.images("c") is images


def test_numpy_alone_reads_the_arrays(folder: Path) -> None:
    image = np.load(folder / "studies" / "a" / "image.npy", mmap_mode="r", allow_pickle=False)
    assert np.array_equal(image, pixels(0)[0])


def test_slices_are_a_sequence(folder: Path) -> None:
    study, expected = SliceStore(folder).studies["a"], slices(4, 0)
    assert tuple(study.slices) == expected
    assert [study.slices[at] for at in range(-4, 4)] == [*expected, *expected]
    assert study.slices[1:3] == expected[1:3]
    assert study.slices == SliceTable.of(expected)
    assert expected[2] in study.slices
    with pytest.raises(IndexError):
        study.slices[4]
    assert study.has_tumour == any(row.tumour for row in expected)


@pytest.mark.parametrize(
    "change",
    [
        {"slices": ()},
        {"slices": (slices(2)[1], slices(2)[0])},
        {"slices": (slices(1)[0], slices(1)[0])},
        {"slices": SliceTable.of(slices(3)).__class__, "key": "a"},
        {"key": "../x"},
        {"key": ".."},
        {"key": "a/b"},
        {"key": ""},
        {"key": "-a"},
        {"key": "a\n"},
        {"key": "a" * 300},
        {"content_xxh3": "short"},
        {"spacing_mm": (1.0, float("nan"), 1.0)},
    ],
)
def test_an_entry_that_makes_no_sense_cannot_be_made(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        entry("a", **change)


@pytest.mark.parametrize("name", ["image.npy", "label.npy"])
@pytest.mark.parametrize("at", [0, 7, 30, 127, 1000, -1])
def test_verify_finds_a_flipped_bit(folder: Path, name: str, at: int) -> None:
    store = SliceStore(folder)
    store.verify()
    path = folder / "studies" / "c" / name
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    with pytest.raises(StoreError, match=rf"1 file.*studies/c/{name} ") as caught:
        store.verify()
    assert "preprocess" in caught.value.cure


def test_verify_lists_every_fault(folder: Path) -> None:
    (folder / "studies" / "a" / "label.npy").unlink()
    (folder / "studies" / "b" / "image.npy").write_bytes(b"")
    np.save(folder / "studies" / "c" / "image.npy", np.zeros((4, 2, 32, 32), dtype=np.float16))
    np.save(folder / "studies" / "c" / "label.npy", np.zeros((4, 32, 32), dtype=np.int8))
    seen: list[tuple[int, int, str]] = []
    store = SliceStore(folder)
    faults = find_faults(folder, store.index, lambda *progress: seen.append(progress))
    assert [str(fault.path.relative_to(folder / "studies")) for fault in faults] == [
        "a/label.npy", "b/image.npy", "c/image.npy", "c/label.npy"
    ]  # fmt: skip
    words = ("missing", "damaged", "digest")
    told = [next(word for word in words if word in str(fault)) for fault in faults]
    assert told == ["missing", "damaged", "digest", "damaged"]
    assert seen == [(1, 3, "a"), (2, 3, "b"), (3, 3, "c")]
    with pytest.raises(StoreError, match=r"4 file.*a/label.npy.*b/image.npy.*c/image.npy.*c/label.npy"):
        store.verify()


@pytest.mark.parametrize(
    ("array", "problem"),
    [
        (np.zeros((4, 2, 32, 32), dtype=np.float32), "not the npy header of a slice store"),
        (np.zeros((4, 2, 32, 32), dtype=">f2"), "not the npy header of a slice store"),
        (np.zeros((4, 2, 32, 32), dtype=np.float16).T, "not the npy header of a slice store"),
        (np.zeros((4, 2, 32, 32), dtype=np.uint8), r"holds \|u1 \(4, 2, 32, 32\), not <f2"),
        (np.zeros((3, 2, 32, 32), dtype=np.float16), r"holds <f2 \(3, 2, 32, 32\), not <f2 \(4, 2, 32, 32\)"),
        (np.zeros((4, 2, 32, 16), dtype=np.float16), "not <f2"),
        (np.zeros((4, 2, 32, 32), dtype=object), "not the npy header of a slice store"),
    ],
)
def test_an_array_of_another_kind_is_refused(folder: Path, array: np.ndarray, problem: str) -> None:
    path = folder / "studies" / "a" / "image.npy"
    np.save(path, array, allow_pickle=True)
    with pytest.raises(StoreError, match=problem):
        SliceStore(folder).images("a")


@pytest.mark.parametrize("length", [0, 5, 100, 128, 5000, -1, None])
def test_a_truncated_or_longer_array_is_refused(folder: Path, length: int | None) -> None:
    path = folder / "studies" / "a" / "image.npy"
    whole = path.read_bytes()
    path.write_bytes(whole + b"\0" if length is None else whole[:length])
    with pytest.raises(StoreError, match=r"studies/a/image\.npy"):
        SliceStore(folder).images("a")


def test_studies_and_labels_that_are_not_there(folder: Path) -> None:
    store = SliceStore(folder)
    with pytest.raises(StoreError, match="no study 'nobody'"):
        store.images("nobody")
    with pytest.raises(StoreError, match=r"no study '\.\./a'"):
        store.labels("../a")
    with pytest.raises(StoreError, match="study b .* has no labels"):
        store.labels("b")
    for make in (Path.mkdir, os.mkfifo):  # reading from a pipe would wait forever
        path = folder / "studies" / "c" / "image.npy"
        path.rmdir() if path.is_dir() else path.unlink()
        make(path)
        with pytest.raises(StoreError, match=r"studies/c/image\.npy is missing"):
            store.images("c")


@pytest.mark.parametrize(
    "change",
    [
        lambda index: index.update(format="other"),
        lambda index: index.update(surprise=1),
        lambda index: index.pop("studies"),
        lambda index: index["preprocessing"].update(size=50),
        lambda index: index["studies"].append(index["studies"][0]),
        lambda index: index["studies"][0].update(key="../x"),
        lambda index: index["studies"][0].update(key="/etc"),
        lambda index: index["studies"][0]["slices"]["z"].pop(),
        lambda index: index["studies"][0]["slices"]["z"].reverse(),
        lambda index: index["studies"][0]["slices"].update(z=[2**40, 2**41, 2**42, 2**43]),
        lambda index: index["studies"][0]["slices"].update(pixel_mm2=[float("nan")] * 4),
        lambda index: index["studies"][0]["slices"].update(foreground=[1e400] * 4),
        lambda index: index["studies"][0]["slices"].update(tumour=""),
        lambda index: index["studies"][0]["quality"].update(frame=[1]),
    ],
)
def test_an_index_that_makes_no_sense_is_refused(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    change_index(folder, change)
    with pytest.raises(StoreError, match=r"store\.json is damaged or of another version") as caught:
        SliceStore(folder)
    assert "preprocess" in caught.value.cure


@pytest.mark.parametrize("version", [2, 4, "3"])
def test_another_format_version_says_so(folder: Path, version: object) -> None:
    """A store of version 1 has its slices one by one and no quality record."""
    change_index(folder, lambda index: index.update(version=version))
    change_index(folder, lambda index: index["studies"][0].pop("quality"))
    with pytest.raises(StoreError, match=f"format version {version}, this SliceWise reads version 3") as caught:
        SliceStore(folder)
    assert caught.value.cure == "run 'slicewise preprocess' again"


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 100_000, b"\0" * 100, b"1e999"]
)
def test_a_damaged_index_is_named(folder: Path, content: bytes) -> None:
    (folder / INDEX).write_bytes(content)
    with pytest.raises(StoreError, match=r"store\.json is damaged"):
        SliceStore(folder)


def test_no_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is not a slice store"):
        SliceStore(tmp_path / "nowhere")
    (tmp_path / INDEX).mkdir()
    with pytest.raises(StoreError, match="is not a slice store"):
        SliceStore(tmp_path)
    (tmp_path / INDEX).rmdir()
    os.mkfifo(tmp_path / INDEX)  # reading it would wait forever
    with pytest.raises(StoreError, match="is not a slice store"):
        SliceStore(tmp_path)


def test_an_index_of_absurd_size_is_not_read(folder: Path) -> None:
    os.truncate(folder / INDEX, 1 << 40)
    with pytest.raises(StoreError, match="1024 MB"):
        SliceStore(folder)


def open_or_refuse(folder: Path) -> None:
    """Everything a reader does; the only error that may come out is the one that names the file."""
    messages = []
    try:
        store = SliceStore(folder)
        for key, study in store.studies.items():
            assert store.images(key).shape[0] == len(study.slices)
            if study.has_labels:
                assert store.labels(key).shape[0] == len(list(study.slices))
    except StoreError as error:
        messages.append(error.message)
    assert all(INDEX in message or str(folder / "studies") in message for message in messages)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["../x", "a"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def places(draw: st.DrawFn, tree: Any) -> list[Any]:
    """The way to some node of a JSON tree."""
    way: list[Any] = []
    while isinstance(tree, dict | list) and tree and (not way or draw(st.integers(0, 3))):
        way.append(draw(st.sampled_from(sorted(tree) if isinstance(tree, dict) else range(len(tree)))))
        tree = tree[way[-1]]
    return way


ANY_FIXTURE = [HealthCheck.function_scoped_fixture]


@settings(max_examples=150, deadline=None, suppress_health_check=ANY_FIXTURE)
@given(data=st.data())
def test_any_change_of_the_index_opens_or_is_refused(folder: Path, data: st.DataObject) -> None:
    path = folder / INDEX
    whole = path.read_bytes()
    index = json.loads(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        way = data.draw(places(index))
        node = index
        for step in way[:-1]:
            node = node[step]
        action = data.draw(st.sampled_from(["replace", "delete", "double"]))
        if action == "delete":
            del node[way[-1]]
        elif action == "double" and isinstance(node, list):
            node.append(copying.deepcopy(node[way[-1]]))
        else:
            node[way[-1]] = data.draw(values)
        if not index:
            break
    path.write_text(json.dumps(index), encoding="utf-8", errors="surrogatepass")
    open_or_refuse(folder)
    path.write_bytes(whole)


@settings(max_examples=150, deadline=None, suppress_health_check=ANY_FIXTURE)
@given(data=st.data(), name=st.sampled_from([INDEX, "studies/a/image.npy", "studies/a/label.npy"]))
def test_any_change_of_bytes_opens_or_is_refused(folder: Path, data: st.DataObject, name: str) -> None:
    path = folder / name
    whole = path.read_bytes()
    at = data.draw(st.integers(0, min(len(whole), 3000 if name == INDEX else 140)))
    end = data.draw(st.integers(at, at + 12))
    path.write_bytes(whole[:at] + data.draw(st.binary(max_size=12)) + whole[end:])
    open_or_refuse(folder)
    path.write_bytes(whole)


OPENED = """
import sys
from pathlib import Path
from slicewise.slices.store import SliceStore
opened, events = [], ("open", "os.listdir", "os.scandir")
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event in events else None)
store = SliceStore(Path(sys.argv[1]))
print(len(store.studies), opened)
opened.clear()
plane = store.images("s0")[77]
again = store.images("s0")[78]
print(plane.shape, opened)
"""


def test_a_thousand_studies_open_by_reading_one_file(many: Path) -> None:
    """And a slice by opening one more; in a process of its own, as the hook cannot be taken off again."""
    answer = subprocess.run([sys.executable, "-c", OPENED, many], capture_output=True, text=True, check=True)
    image = many / "studies" / "s0" / "image.npy"
    assert answer.stdout.splitlines() == [f"{MANY} ['{many / INDEX}']", f"(2, 32, 32) ['{image}']"]


def test_a_thousand_studies_open_without_their_slices(many: Path) -> None:
    """No object is made per slice: the columns are shared tuples."""
    store = SliceStore(many)
    assert sum(len(study.slices) for study in store.studies.values()) == MANY * 155
    assert all(type(study.slices.z) is tuple for study in store.studies.values())
    assert tuple(store.studies["s7"].slices) == slices(155, 7)


def mapped_kilobytes(path: Path) -> int:
    """How much of a mapped file this process has in memory."""
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    total = 0
    for line in lines:
        if line.endswith(str(path)):
            total += next(int(row.split()[1]) for row in lines if row.startswith("Rss:"))
    return total


@LINUX
def test_one_slice_does_not_bring_in_the_rest(tmp_path: Path) -> None:
    """Of 37 MB only the pages around the slice are touched; a page of the page cache may be 2 MB."""
    count, config = 64, SliceConfig(size=272)
    images, _ = pixels(0, count, config)
    digest, _, own = write_study(tmp_path, "big", images, None, native(0))
    study = entry("big", count, content_xxh3=digest, label_xxh3=None, native_xxh3=own)
    write_index(tmp_path, StoreIndex(preprocessing=config, data_digest="d", sources=("test",), studies=(study,)))
    mapped = SliceStore(tmp_path).images("big")
    path = tmp_path / "studies" / "big" / "image.npy"
    assert mapped_kilobytes(path) < 2500
    assert np.array_equal(mapped[30], images[30])
    assert images[30].nbytes // 1024 * 0.9 < mapped_kilobytes(path) < images.nbytes // 1024 // 4
    assert np.shares_memory(mapped[30], mapped)


def test_prefetching_changes_nothing(folder: Path) -> None:
    store = SliceStore(folder)
    for key, study in store.studies.items():
        for row in range(len(study.slices)):
            store.prefetch(key, row)
    assert isinstance(store.images("c").base, mmap.mmap)  # what the request goes to
    assert np.array_equal(store.images("c"), pixels(2)[0])
    with pytest.raises(StoreError, match="no study"):
        store.prefetch("nobody", 0)


@LINUX
def test_more_studies_than_open_files(tmp_path: Path) -> None:
    """A map keeps its file open, so that the store lets go of those used least recently."""
    images, labels = pixels(0)
    names = [f"s{at}" for at in range(60)]
    entries = []
    for name in names:
        content, label, own = write_study(tmp_path, name, images, labels, native(0))
        entries.append(entry(name, content_xxh3=content, label_xxh3=label, native_xxh3=own))
    index = StoreIndex(preprocessing=CONFIG, data_digest="d", sources=("test",), studies=tuple(entries))
    write_index(tmp_path, index)
    store = SliceStore(tmp_path, open_maps=20)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 30, hard))
    try:
        sums = {float(store.images(name)[0].sum()) + int(store.labels(name)[0].sum()) for name in names * 2}
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(sums) == 1


def test_a_store_goes_to_another_process(folder: Path) -> None:
    store = SliceStore(folder)
    store.images("a")
    sent = pickle.loads(pickle.dumps(store))
    assert sent.index == store.index
    assert np.array_equal(sent.images("a"), store.images("a"))


def test_a_retried_study_replaces_what_was_there(folder: Path) -> None:
    first = write_study(folder, "a", *pixels(9), native(9))
    assert first == write_study(folder, "a", *pixels(9), native(9))
    assert first != write_study(folder, "a", pixels(8)[0], None, native(9))
    assert sorted(path.name for path in (folder / "studies").iterdir()) == ["a", "b", "c"]
    assert sorted(path.name for path in (folder / "studies" / "a").iterdir()) == ["image.npy", "native.zz"]


def test_equal_images_have_one_digest_whatever_their_memory_layout(tmp_path: Path) -> None:
    images, labels = pixels(3)
    one = write_study(tmp_path, "one", images, labels, native(0))
    assert one == write_study(tmp_path, "two", np.asfortranarray(images), labels[::-1][::-1], native(0))
    assert one != write_study(tmp_path, "three", images[:, ::-1], labels, native(0))
    assert len(one[0]) == len(NO_DIGEST)


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (np.zeros((2, 1, 32, 32), dtype=np.float32), None),
        (np.zeros((2, 32, 32), dtype=np.float16), None),
        (np.zeros((0, 1, 32, 32), dtype=np.float16), None),
        (np.zeros((2, 1, 32, 32), dtype=np.float16), np.zeros((1, 32, 32), dtype=np.uint8)),
        (np.zeros((2, 1, 32, 32), dtype=np.float16), np.zeros((2, 32, 32), dtype=bool)),
    ],
)
def test_arrays_of_another_kind_are_not_written(tmp_path: Path, images: Any, labels: Any) -> None:
    with pytest.raises(StoreError):
        write_study(tmp_path, "a", images, labels, native(0))
    assert not (tmp_path / "studies").exists()


def test_a_full_disk_is_an_error_with_a_cure(tmp_path: Path) -> None:
    """Any failure to write is: here a file stands where the folder should be."""
    (tmp_path / "studies").write_bytes(b"")
    with pytest.raises(StoreError, match="study a cannot be written") as caught:
        write_study(tmp_path, "a", *pixels(0), native(0))
    assert "disk" in caught.value.cure


def test_write_index_is_one_line_per_study(folder: Path) -> None:
    lines = (folder / INDEX).read_text().splitlines()
    assert [json.loads(line.rstrip(","))["key"] for line in lines if line.startswith('{"key"')] == ["a", "b", "c"]
    write_index(folder, SliceStore(folder).index)
    assert (folder / INDEX).read_text().splitlines() == lines
    shutil.copy(folder / INDEX, folder / "copy.json")
    assert isinstance(SliceStore(folder).index.studies[0], StudyEntry)


def test_the_documented_example_reads_a_store(folder: Path) -> None:
    """With numpy alone: the example of the format's page, run as it stands there."""
    page = (Path(__file__).parents[2] / "docs" / "slice-store.md").read_text(encoding="utf-8")
    example = page.split("```python\n")[1].split("```")[0]
    assert "slicewise" not in example
    names: dict[str, Any] = {}
    exec(example.replace("work/store", str(folder)), names)
    study = SliceStore(folder).studies["c"]
    last = max(row for row, chosen in enumerate(study.slices.selected) if chosen)
    assert np.array_equal(names["plane"], pixels(2)[0][last])
    assert (names["z"], names["tumour"]) == (study.slices[last].z, study.slices[last].tumour)


def test_the_page_names_every_field() -> None:
    page = (Path(__file__).parents[2] / "docs" / "slice-store.md").read_text(encoding="utf-8")
    columns = {field.name for field in dataclasses.fields(SliceTable)}
    names = {*StoreIndex.model_fields, *StudyEntry.model_fields, *QualityRecord.model_fields, *columns}
    assert [name for name in sorted(names) if f"`{name}`" not in page] == []
