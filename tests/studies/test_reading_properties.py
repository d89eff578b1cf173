"""Whatever lies in a file, reading it gives a good study or one line that names the file and the cure."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import struct
import subprocess
import sys
import tempfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from slicewise.errors import StudyError
from slicewise.studies import gunzip as gunzip_module
from slicewise.studies.gunzip import GzipError, gunzip, gunzip_head
from slicewise.studies.nifti import MAX_BYTES, load_nifti, load_nifti_4d
from slicewise.studies.reading import read_study
from slicewise.studies.repair import contains, distinct_values, is_constant
from slicewise.studies.study import Study, StudyRecord

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
VOLUME = np.random.default_rng(0).integers(1, 900, (5, 6, 4)).astype(np.int16)
NAMES = ("A_flair.nii.gz", "A_seg.nii.gz")
SETTINGS = settings(max_examples=150, deadline=None)


def nifti(data: NDArray[Any] = VOLUME, affine: NDArray[np.float64] = LPS, kind: Any = nib.Nifti1Image) -> bytearray:
    image = kind(data, affine, dtype=data.dtype)
    return bytearray(image.to_bytes())


def record(label: bool = False, layout: Any = "brats") -> StudyRecord:
    labels = (NAMES[1],) if label else ()
    images = {"flair": (NAMES[0],)}
    return StudyRecord(study_id="A", patient_id="A", source="x", layout=layout, images=images, labels=labels)


def read(content: bytes, label: bytes | None = None) -> Study:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, NAMES[0]).write_bytes(content)
        if label is not None:
            Path(folder, NAMES[1]).write_bytes(label)
        return read_study(record(label is not None), Path(folder))


def good_or_named(content: bytes, label: bytes | None = None) -> Study | None:
    """The property: a sound study, or a ``StudyError`` of one line with file and cure. Anything else fails."""
    study = None
    try:
        study = read(content, label)
    except StudyError as error:
        text, cure = str(error), error.cure
    if study is None:
        assert any(name in text for name in NAMES) or "flair" in text
        assert "\n" not in text
        assert cure
        assert len(text) < 600
        return None
    (channel,) = study.channels
    assert channel.ndim == 3
    assert channel.dtype.kind in "iuf"
    assert channel.dtype.itemsize <= 4
    assert channel.dtype.isnative
    assert np.isfinite(channel).all()
    assert channel.min() < channel.max()
    assert np.isfinite(study.spacing_mm).all()
    assert min(study.spacing_mm) > 0
    return study


def patched(content: bytearray, at: int, kind: str, *values: float) -> bytes:
    struct.pack_into(kind, content, at, *values)
    return bytes(content)


# NIfTI-1: name of the field → its offset and type (nifti1.h).
FIELDS = {
    "sizeof_hdr": (0, "<i"), "dim": (40, "<8h"), "datatype": (70, "<h"), "bitpix": (72, "<h"), "pixdim": (76, "<8f"),
    "vox_offset": (108, "<f"), "scl_slope": (112, "<f"), "scl_inter": (116, "<f"), "xyzt_units": (123, "<B"),
    "qform_code": (252, "<h"), "sform_code": (254, "<h"), "quatern": (256, "<3f"), "srow": (280, "<12f"),
}  # fmt: skip
WILD = st.one_of(st.floats(width=32), st.sampled_from([0.0, -1.0, 1e-30, 3e38, 352.0, 352.5]))
SHORT = st.one_of(st.integers(-(2**15), 2**15 - 1), st.sampled_from([0, 1, 2, 3, 7, 8, -1, 32767]))


@st.composite
def field_values(draw: st.DrawFn) -> tuple[str, list[Any]]:
    name = draw(st.sampled_from(sorted(FIELDS)))
    kind = FIELDS[name][1]
    number = int(kind[1:-1] or 1)
    values = {"f": WILD, "h": SHORT, "i": st.integers(-(2**31), 2**31 - 1), "B": st.integers(0, 255)}[kind[-1]]
    return name, draw(st.lists(values, min_size=number, max_size=number))


@SETTINGS
@given(changes=st.lists(field_values(), min_size=1, max_size=3), zipped=st.booleans())
def test_any_header_field(changes: list[tuple[str, list[Any]]], zipped: bool) -> None:
    content = nifti()
    for name, values in changes:
        patched(content, *FIELDS[name], *values)
    good_or_named(gzip.compress(content) if zipped else bytes(content))


@SETTINGS
@given(at=st.integers(0, 347), value=st.integers(0, 255), kind=st.sampled_from([nib.Nifti1Image, nib.Nifti2Image]))
def test_any_header_byte(at: int, value: int, kind: Any) -> None:
    content = nifti(kind=kind)
    content[at] = value
    good_or_named(bytes(content))


@pytest.mark.parametrize(
    "code", [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 768, 1024, 1280, 1536, 1792, 2048, 2304, 9]
)
def test_every_datatype_code(code: int) -> None:
    """0/1 unknown and bits, 128/2304 RGB(A), 32/1792/2048 complex, 1536 float128, 9 nothing."""
    content = nifti(np.tile(VOLUME, (1, 1, 16)))
    patched(content, *FIELDS["dim"], 3, 5, 6, 4, 1, 1, 1, 1)
    study = good_or_named(patched(content, *FIELDS["datatype"], code))
    if code in (0, 1, 9, 32, 128, 1792, 2048, 2304):
        assert study is None


@SETTINGS
@given(dims=st.lists(SHORT, min_size=7, max_size=7), count=st.integers(-1, 9))
@example([32767] * 7, 7)
@example([32767, 32767, 1, 1, 1, 1, 1], 3)
@example([0, 6, 4, 1, 1, 1, 1], 3)
def test_any_shape(dims: list[int], count: int) -> None:
    content = nifti()
    good_or_named(gzip.compress(patched(content, *FIELDS["dim"], count, *dims)))


@pytest.mark.parametrize(
    ("shape", "fine"),
    [((120,), False), ((5, 24), True), ((5, 24, 1), True), ((1, 5, 24), True), ((5, 6, 4, 1, 1, 1, 1), True),
     ((5, 6, 2, 2), False), ((5, 6, 1, 2, 1, 2), False), ((5, 6, 4, 1, 1), True)],
)  # fmt: skip
def test_dimensions(shape: tuple[int, ...], fine: bool) -> None:
    study = good_or_named(nifti(VOLUME.reshape(shape)))
    assert (study is not None) is fine


@SETTINGS
@given(rows=st.lists(st.one_of(st.floats(width=32), st.floats(-3, 3, width=32)), min_size=12, max_size=12))
@example([0.0] * 12)
@example([1.0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0])
@example([1e30, 0, 0, 0, 0, 1e30, 0, 0, 0, 0, 1e30, 0])
@example([1.0, 0, 0, 3e38, 0, 1, 0, 3e38, 0, 0, 1, -3e38])
def test_any_affine(rows: list[float]) -> None:
    content = nifti()
    patched(content, *FIELDS["sform_code"], 1)
    good_or_named(patched(content, *FIELDS["srow"], *rows))


@SETTINGS
@given(
    data=st.sampled_from(["<i2", ">i2", "<u2", ">f4", "<f8", ">f8", "<i8", ">u8", "<i1", "<u1", "<i4", ">u4"]),
    slope=WILD,
    intercept=WILD,
)
@example("<i2", float("nan"), 0.0)
@example("<i2", 0.0, 5.0)
@example("<f4", 1e-3, -1.0)
@example(">i2", 0.5, 3.0)
def test_scaling_and_types_as_nibabel_reads_them(data: str, slope: float, intercept: float) -> None:
    values = (VOLUME % 120).astype(np.dtype(data))
    image = nib.Nifti1Image(values, LPS, dtype=values.dtype.newbyteorder("="))
    header = image.header.as_byteswapped(">") if data[0] == ">" else image.header.copy()
    header["vox_offset"] = 352
    header["scl_slope"], header["scl_inter"] = slope, intercept
    content = header.binaryblock + b"\0" * 4 + values.tobytes(order="F")
    study = good_or_named(content)
    if study is None:
        return
    with np.errstate(all="ignore"):
        theirs = np.asanyarray(nib.Nifti1Image.from_bytes(content).dataobj).astype(np.float32)
    theirs = np.where(np.isfinite(theirs), theirs, 0).transpose(2, 1, 0)
    np.testing.assert_allclose(study.channels[0], theirs, rtol=2e-6, atol=1e-6 * np.abs(theirs).max())


def test_integers_stay_as_they_are() -> None:
    for kind in ("<i2", "<u2", "<u1", "<i4", ">i2", "<f4"):
        study = good_or_named(nifti(VOLUME.astype(kind)))
        assert study is not None
        assert study.channels[0].dtype == np.dtype(kind).newbyteorder("=")
        assert np.array_equal(study.channels[0], VOLUME.astype(kind).transpose(2, 1, 0))


PACKED = gzip.compress(nifti(), mtime=0)


@given(length=st.integers(0, len(PACKED) - 1))
@SETTINGS
def test_truncated_at_any_byte(length: int) -> None:
    assert good_or_named(PACKED[:length]) is None


@given(bit=st.integers(0, 8 * len(PACKED) - 1))
@SETTINGS
def test_any_flipped_bit_of_a_gzip_stream(bit: int) -> None:
    """Either the flip is found, or it changes nothing (the header's time, another code for the same bytes)."""
    broken = bytearray(PACKED)
    broken[bit // 8] ^= 1 << bit % 8
    study = good_or_named(bytes(broken))
    if study is not None:
        assert np.array_equal(study.channels[0], VOLUME.transpose(2, 1, 0))


@SETTINGS
@given(data=st.one_of(st.binary(max_size=800), st.text(max_size=300).map(str.encode), st.just(b"")))
@example(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 2000000\n")
@example(b"<!DOCTYPE html><html>Access denied</html>")
def test_text_and_rubbish(data: bytes) -> None:
    assert good_or_named(data) is None
    assert good_or_named(gzip.compress(data)) is None
    good_or_named(bytes(nifti()[:352]) + data)


def test_name_and_content_may_disagree_on_compression(tmp_path: Path) -> None:
    for name, content in (("a.nii.gz", bytes(nifti())), ("b.nii", PACKED)):
        (tmp_path / name).write_bytes(content)
        assert np.array_equal(load_nifti(tmp_path / name, "A").data, VOLUME)


def test_things_that_are_no_files(tmp_path: Path) -> None:
    (tmp_path / NAMES[0]).mkdir()
    with pytest.raises(StudyError, match=r"A_flair\.nii\.gz is a folder or device"):
        read_study(record(), tmp_path)
    (tmp_path / NAMES[0]).rmdir()
    os.mkfifo(tmp_path / NAMES[0])  # opened for reading, it would wait for a writer for ever
    with pytest.raises(StudyError, match="folder or device"):
        read_study(record(), tmp_path)
    (tmp_path / NAMES[0]).unlink()
    (tmp_path / NAMES[0]).symlink_to(tmp_path / NAMES[0])
    with pytest.raises(StudyError, match=r"A_flair\.nii\.gz cannot be read"):
        read_study(record(), tmp_path)


def test_an_unreadable_file() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        Path(folder, NAMES[0]).write_bytes(PACKED)
        Path(folder, NAMES[0]).chmod(0)
        user = os.geteuid()
        try:
            if user == 0:  # root may read everything
                os.seteuid(65534)
            with pytest.raises(StudyError, match=r"A_flair\.nii\.gz cannot be read \(Permission denied\)") as caught:
                read_study(record(), Path(folder))
        finally:
            os.seteuid(user)
    assert "permissions" in caught.value.cure


@contextlib.contextmanager
def allocating_less_than(limit: int) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


def bomb(announced: tuple[int, ...], size: int) -> bytes:
    """A header, then ``size`` zeros in as few bytes as gzip can."""
    content = nifti()
    patched(content, *FIELDS["dim"], len(announced), *announced, *([1] * (7 - len(announced))))
    target = io.BytesIO()
    with gzip.GzipFile(fileobj=target, mode="wb", mtime=0) as stream:
        stream.write(content[:352])
        for _ in range(size >> 20):
            stream.write(bytes(1 << 20))
    return target.getvalue()


@pytest.mark.parametrize(
    ("announced", "size", "reason"),
    [((30000, 30000, 3000), 64 << 20, "more than 1 GB"),
     ((800, 800, 700), 64 << 20, "more than .* packed bytes can hold"), ((5, 6, 4), 64 << 20, "constant")],
)  # fmt: skip
def test_bombs_take_no_memory(announced: tuple[int, ...], size: int, reason: str) -> None:
    packed = bomb(announced, size)
    assert len(packed) < 1200 << 10
    with allocating_less_than(16 << 20), pytest.raises(StudyError, match=reason):
        read(packed)


def test_a_bomb_is_given_up_at_the_limit() -> None:
    packed = bomb((5, 6, 4), 64 << 20)
    with allocating_less_than(4 << 20), pytest.raises(GzipError, match="unpacks to more than"):
        gunzip(packed, 592, 32 << 20)


def test_a_volume_that_is_too_large_is_refused_unread(tmp_path: Path) -> None:
    content = patched(nifti(), *FIELDS["dim"], 3, 20000, 20000, 10, 1, 1, 1, 1)
    path = tmp_path / "a.nii"
    path.write_bytes(content)
    os.truncate(path, MAX_BYTES * 4)  # sparse: takes no room on the disk
    with allocating_less_than(1 << 20), pytest.raises(StudyError, match=r"a\.nii has or announces"):
        load_nifti(path, "A")


def test_peak_memory_of_a_read_is_one_copy(tmp_path: Path) -> None:
    data = np.random.default_rng(0).integers(0, 9, (160, 160, 100)).astype(np.int16)
    (tmp_path / NAMES[0]).write_bytes(gzip.compress(nifti(data), 1))
    packed = (tmp_path / NAMES[0]).stat().st_size
    with allocating_less_than(data.nbytes + packed + (1 << 20)):
        study = read_study(record(), tmp_path)
    assert study.channels[0].flags.c_contiguous
    assert study.channels[0].base is not None


def test_nan_and_infinity() -> None:
    assert good_or_named(nifti(np.full(VOLUME.shape, np.nan, np.float32))) is None
    assert good_or_named(nifti(np.full(VOLUME.shape, 7, np.float32))) is None
    some = VOLUME.astype(np.float64)
    some[0, 0, :3] = np.nan, np.inf, 1e300  # the last is too large for 32 bits
    study = good_or_named(nifti(some))
    assert study is not None
    assert "3 NaN or infinite values set to 0" in study.warnings[0]
    assert np.array_equal(study.channels[0] == 0, ~(np.abs(some) < 1e5).transpose(2, 1, 0))


LABEL_TYPES = ("<u1", "<i2", ">i2", "<f4", ">f8", "<i8")


@SETTINGS
@given(
    values=st.lists(
        st.sampled_from([0, 1, 2, 3, 4, 7, -1, 255, 0.5, 2.00001, float("nan"), float("inf")]), max_size=6
    ),
    kind=st.sampled_from(LABEL_TYPES),
)
def test_any_label_values(values: list[float], kind: str) -> None:
    with np.errstate(invalid="ignore"):
        stored = np.zeros(VOLUME.shape, np.float64)
        stored.flat[: len(values)] = values
        stored = stored.astype(kind)
    study = good_or_named(bytes(nifti()), bytes(nifti(stored)))
    present = [float(value) for value in np.unique(stored)]
    whole = {2.0 if abs(value - 2) < 1e-4 else value for value in present}
    sound = whole <= {0, 1, 2, 3, 4} and not {3, 4} <= whole
    assert (study is not None) is sound
    if study is not None and study.labels is not None:
        expected = np.where(np.rint(stored) == 3, 4, np.rint(stored)).transpose(2, 1, 0)
        assert study.labels.dtype == np.uint8
        assert study.labels.flags.c_contiguous
        assert np.array_equal(study.labels, expected)


def test_an_empty_mask_is_a_study_without_tumour() -> None:
    study = good_or_named(bytes(nifti()), bytes(nifti(np.zeros(VOLUME.shape, np.uint8))))
    assert study is not None
    assert study.labels is not None
    assert not study.labels.any()
    assert study.known_regions == ("WT", "TC", "ET")


def test_a_bad_label_names_itself() -> None:
    with pytest.raises(StudyError, match=r"A_seg\.nii\.gz holds the label value 7 "):
        read(bytes(nifti()), bytes(nifti(np.full(VOLUME.shape, 7, np.uint8))))
    with pytest.raises(StudyError, match=r"A_seg\.nii\.gz is truncated"):
        read(bytes(nifti()), PACKED[:-9])


def note_of(content: bytes) -> str:
    study = good_or_named(content)
    assert study is not None
    return " ".join(study.warnings)


def with_spacing(size: float, unit: int) -> bytes:
    image = nib.Nifti1Image(VOLUME, np.diag([size, size, size, 1]))
    return patched(bytearray(image.to_bytes()), *FIELDS["xyzt_units"], unit)


def test_units_and_spacing() -> None:
    for content, spacing, words in (
        (with_spacing(1, 2), 1.0, ""),
        (with_spacing(1, 0), 1.0, ""),
        (with_spacing(0.001, 1), 1.0, "the unit is metre; turned into voxels of 1×1×1 mm"),
        (with_spacing(900, 3), 0.9, "the unit is micron; turned into"),
        (with_spacing(1, 1), 1.0, "the unit is metre, but"),
        (with_spacing(80, 2), 80.0, "voxels of 80×80×80 mm are not plausible"),
        (with_spacing(0.01, 2), 0.01, "not plausible"),
    ):
        study = good_or_named(content)
        assert study is not None
        np.testing.assert_allclose(study.spacing_mm, spacing, rtol=1e-6)
        assert words in " ".join(study.warnings)
        assert bool(study.warnings) is bool(words)


def test_two_frames_in_one_header() -> None:
    image = nib.Nifti1Image(VOLUME, LPS)
    for shift, words in ((0.5, ""), (4.0, "sform and qform lie 4.0 mm apart; the sform is used")):
        image.set_sform(LPS, 1)
        image.set_qform(LPS + np.diag([shift], k=3), 1)
        study = good_or_named(image.to_bytes())
        assert study is not None
        assert bool(study.warnings) is bool(words)
        assert words in " ".join(study.warnings)
    broken = bytearray(image.to_bytes())
    assert "qform is damaged" in note_of(patched(broken, *FIELDS["quatern"], 2, 2, 2))
    patched(broken, *FIELDS["sform_code"], 0)
    assert good_or_named(bytes(broken)) is None


def test_a_pair_and_a_missing_offset() -> None:
    content = nifti()
    assert "no vox_offset" in note_of(patched(bytearray(content), *FIELDS["vox_offset"], 0))
    content[344:348] = b"ni1\0"
    with pytest.raises(StudyError, match=r"\.hdr/\.img pair.*convert"):
        read(bytes(content))


def test_a_stack_of_volumes(tmp_path: Path) -> None:
    path = tmp_path / "stack.nii.gz"
    four = np.stack([VOLUME, VOLUME + 1, VOLUME + 2], -1)
    for data, shape in ((four, (5, 6, 4, 3)), (VOLUME, (5, 6, 4, 1)), (four[..., None], (5, 6, 4, 3))):
        path.write_bytes(gzip.compress(nifti(data)))
        stack = load_nifti_4d(path, "A")
        assert stack.data.shape == shape
        assert np.array_equal(stack.data, data.reshape(shape))
        assert stack.data[..., -1].T.flags.c_contiguous
    path.write_bytes(gzip.compress(nifti(np.zeros((2, 2, 2, 2, 2), np.int16))))
    with pytest.raises(StudyError, match=r"stack\.nii\.gz has shape 2×2×2×2×2"):
        load_nifti_4d(path, "A")


# --- gzip streams by themselves


@pytest.fixture(params=["libdeflate", "zlib"])
def any_library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways: the wheel's, and the one of machines for which there is no wheel."""
    if request.param == "zlib":
        monkeypatch.setattr(gunzip_module, "gzip_decompress", None)
    elif gunzip_module.gzip_decompress is None:
        pytest.skip("the wheel deflate is not installed")
    return str(request.param)


DATA = np.random.default_rng(1).integers(0, 4, 200_000).astype(np.uint8).tobytes()


def test_members_and_padding(any_library: str) -> None:
    halves = gzip.compress(DATA[:70_000]) + gzip.compress(b"") + gzip.compress(DATA[70_000:])
    blocks = b"".join(gzip.compress(DATA[at : at + 999]) for at in range(0, len(DATA), 999))
    for packed in (gzip.compress(DATA), halves, blocks, gzip.compress(DATA) + b"\0" * 600, gzip.compress(DATA) * 2):
        assert bytes(gunzip(packed, len(DATA), 1 << 20)[: len(DATA)]) == DATA
        assert gunzip_head(packed, 540) == DATA[:540]


def test_damage(any_library: str) -> None:
    packed = gzip.compress(DATA)
    flipped = bytearray(packed)
    flipped[len(packed) // 2] ^= 16
    lies = packed[:-4] + struct.pack("<I", 0xFFFFFFFF)
    cases = (b"", packed[:-1], packed[:-8], packed[:-8] + b"oops" + packed[-4:], lies, flipped, packed + b"rubbish",
             packed + packed[:-3])  # fmt: skip
    for case in cases:
        with pytest.raises(GzipError), allocating_less_than(2 << 20):
            gunzip(bytes(case), len(DATA) if case is not cases[-1] else len(DATA) + 1, 1 << 30)
    with pytest.raises(GzipError, match="more than 300000"):
        gunzip(packed + gzip.compress(DATA[1:] * 2), len(DATA), 300_000)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 3000), min_size=1, max_size=5), level=st.integers(0, 9), asked=st.integers(0, 9000)
)
def test_any_stream_unpacks_as_the_standard_library_does(sizes: list[int], level: int, asked: int) -> None:
    packed = b"".join(gzip.compress(DATA[:size], level) for size in sizes)
    whole = gzip.decompress(packed)
    try:
        got = gunzip(packed, asked, 1 << 20)
    except GzipError:
        assert asked > len(whole)
    else:
        assert len(got) >= asked
        assert whole.startswith(bytes(got))


def test_the_reader_works_without_the_wheel(tmp_path: Path) -> None:
    """In a fresh interpreter in which ``deflate`` cannot be found."""
    (tmp_path / "a.nii.gz").write_bytes(PACKED)
    code = (
        "import importlib.util, sys; real = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'deflate' else real(name, *rest)\n"
        "from pathlib import Path; from slicewise.studies.nifti import load_nifti\n"
        "assert load_nifti(Path(sys.argv[1]), 'A').data.shape == (5, 6, 4) and 'deflate' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.nii.gz")], check=True, timeout=120)


@given(values=st.lists(st.integers(-3, 3), min_size=1, max_size=40), order=st.sampled_from("CF"))
def test_looking_for_values(values: list[int], order: Any) -> None:
    data = np.array(values).reshape(-1, 1, 1).astype(np.int16, order=order)
    assert distinct_values(data).tolist() == sorted(set(values))
    assert is_constant(data) is (len(set(values)) == 1)
    assert [contains(data, value) for value in range(-4, 5)] == [value in values for value in range(-4, 5)]
