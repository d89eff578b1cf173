"""What the REST routes are made of, without a server: masks, archives, parameters, words."""

from __future__ import annotations

import base64
import io
import itertools
import stat
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from serving.codecs.masks import encode_map, encode_mask, from_run_lengths, run_lengths
from serving.codecs.overlays import heat_overlay, regions_overlay
from serving.codecs.zips import ZipLimits, unpack
from serving.gateway.rest.parameters import SegmentParameters, StudyParameters, UncertaintyParameters, names_of, read
from serving.recommendation import BY_DECISION, CLOSING, recommend
from slicewise.errors import InputError, TooLargeError

LIMITS = ZipLimits(files=5, unpacked_bytes=1 << 16, depth=4)


def picture(text: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


@given(arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 1)))
def test_run_lengths_are_cocos(mask: np.ndarray) -> None:
    """Against a run-length coder of the standard library's, and back."""
    flat = [int(value) for column in mask.T for value in column]
    runs = [(value, len(list(group))) for value, group in itertools.groupby(flat)]
    expected = ([0] if runs[0][0] else []) + [length for _, length in runs]
    code = run_lengths(mask)
    assert code == {"size": list(mask.shape), "counts": expected}
    np.testing.assert_array_equal(from_run_lengths(code), mask)


def test_all_mask_forms_hold_the_same_mask() -> None:
    mask = (np.arange(35).reshape(5, 7) % 3 == 0).astype(np.uint8)
    png, npy, rle = (encode_mask(mask, form) for form in ("png", "npy", "rle"))
    np.testing.assert_array_equal(picture(str(png)), mask * 255)
    np.testing.assert_array_equal(np.load(io.BytesIO(base64.b64decode(str(npy)))), mask)
    assert isinstance(rle, dict)
    np.testing.assert_array_equal(from_run_lengths(rle), mask)


def test_maps_keep_their_values_in_npy_and_256_steps_in_png() -> None:
    values = np.linspace(0, 0.5, 12, dtype=np.float32).reshape(3, 4)
    exact = np.load(io.BytesIO(base64.b64decode(encode_map(values, "npy", 0.5))))
    np.testing.assert_array_equal(exact, values)
    np.testing.assert_array_equal(picture(encode_map(values, "png", 0.5)), np.round(values / 0.5 * 255))


@pytest.mark.parametrize("shape", [(40, 60), (61, 40), (1, 9)])
def test_overlays_have_the_slices_own_pixels(shape: tuple[int, int]) -> None:
    plane = np.full(shape, 100.0, dtype=np.float32)
    plane[0, 0] = 50
    mask = np.zeros((3, *shape), dtype=np.uint8)
    mask[0, :, 2:6] = 1
    painted, bare = picture(regions_overlay(plane, mask)), picture(regions_overlay(plane, np.zeros_like(mask)))
    assert painted.shape == (*shape, 3)
    changed = (painted != bare).any(axis=-1)
    np.testing.assert_array_equal(changed, mask[0].astype(bool))
    heat = np.zeros(shape, dtype=np.float32)
    heat[:, 3] = 1
    assert (picture(heat_overlay(plane, heat, 1.0, "gradcam")) != bare).any(axis=-1)[:, 3].all()


def archive(*members: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members:
            file.writestr(name, content)
    return buffer.getvalue()


def link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


def lying(content: bytes, declared: int) -> bytes:
    """An archive whose directory declares another size than what its one file unpacks to."""
    data = bytearray(archive(("a.nii", content)))
    for signature, offset in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
        at = data.index(signature) + offset
        data[at : at + 4] = declared.to_bytes(4, "little")
    return bytes(data)


def test_a_good_archive_is_unpacked(tmp_path: Path) -> None:
    paths = unpack(archive(("p/a.dcm", b"one"), ("p/q/b.dcm", b"two")), tmp_path, LIMITS, "x.zip")
    assert {str(path.relative_to(tmp_path)): path.read_bytes() for path in paths} == {
        "p/a.dcm": b"one",
        "p/q/b.dcm": b"two",
    }


@pytest.mark.parametrize(
    ("data", "kind", "named"),
    [
        (archive(("../a", b"x")), InputError, "outside"),
        (archive(("/etc/a", b"x")), InputError, "outside"),
        (archive(("c:\\a", b"x")), InputError, "outside"),
        (archive((link("a"), b"/etc/passwd")), InputError, "link"),
        (archive(("a/b/c/d/e", b"x")), InputError, "deep"),
        (archive(("n" * 300, b"x")), InputError, "long"),
        (archive(("inner.zip", archive(("a", b"x")))), InputError, "archive in the archive"),
        (archive(*((f"{n}", b"x") for n in range(6))), TooLargeError, "6 files"),
        (archive(("bomb", bytes(1 << 20))), TooLargeError, "unpacks to more"),
        (archive(("a", b"x"), ("A/../a", b"y")), InputError, "outside"),
        (archive(), InputError, "empty"),
        (archive(("a", b"x" * 500))[:60], InputError, "truncated"),
        (lying(bytes(1 << 20), 10), InputError, "x.zip"),
    ],
)
def test_hostile_archives_are_refused(data: bytes, kind: type[InputError], named: str, tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    with pytest.raises(kind, match=named):
        unpack(data, inside, LIMITS, "x.zip")
    assert [path for path in tmp_path.iterdir() if path != inside] == []
    assert sum(path.stat().st_size for path in inside.rglob("*") if path.is_file()) <= LIMITS.unpacked_bytes


@given(st.binary(max_size=300))
def test_noise_is_no_archive(tmp_path_factory: pytest.TempPathFactory, noise: bytes) -> None:
    with pytest.raises(InputError):
        unpack(b"PK\x03\x04" + noise, tmp_path_factory.mktemp("noise"), LIMITS, "x.zip")


def test_parameters_by_any_of_their_names() -> None:
    given_ = {"mc_iterations": "7", "use_tta": "true", "pixel_mm": "0.5,0.6", "modalities": "flair,t1"}
    found = read(UncertaintyParameters, given_)
    assert (found.n_mc_samples, found.use_tta, found.pixel_mm, found.modalities) == (
        7,
        True,
        (0.5, 0.6),
        ("flair", "t1"),
    )
    assert found.for_model("uncertainty")["n_mc_samples"] == 7
    assert "mc_iterations" in names_of(UncertaintyParameters)


@pytest.mark.parametrize(
    ("kind", "given_", "named"),
    [
        (SegmentParameters, {"treshold": "1"}, "did you mean 'threshold'"),
        (SegmentParameters, {"threshold": "nan"}, "threshold"),
        (SegmentParameters, {"threshold": 1.01}, "threshold"),
        (SegmentParameters, {"threshold": True}, "threshold"),
        (SegmentParameters, {"mask_format": "gif"}, "mask_format"),
        (SegmentParameters, {"n_mc_samples": 5}, "n_mc_samples"),
        (UncertaintyParameters, {"mc_iterations": 0}, "mc_iterations"),
        (UncertaintyParameters, {"n_mc_samples": 51}, "n_mc_samples"),
        (UncertaintyParameters, {"n_mc_samples": 2.5}, "n_mc_samples"),
        (UncertaintyParameters, {"use_tta": "perhaps"}, "use_tta"),
        (StudyParameters, {"slice_mm": 0}, "slice_mm"),
        (StudyParameters, {"pixel_mm": "1,2,3"}, "pixel_mm"),
    ],
)
def test_wrong_parameters_are_named(kind: type[SegmentParameters], given_: dict[str, object], named: str) -> None:
    with pytest.raises(InputError, match=named) as caught:
        read(kind, given_)
    assert caught.value.cure


def test_recommendations_never_diagnose() -> None:
    texts = [recommend(decision, flag) for decision in BY_DECISION for flag in (None, False, True)]
    assert all(text.endswith(CLOSING) for text in texts)
    assert recommend("tumour", True) == recommend("no_tumour", True)
    assert len(set(texts)) == len(BY_DECISION) + 1
