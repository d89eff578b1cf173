from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import ndimage

from slicewise.config import SliceConfig
from slicewise.errors import InputError
from slicewise.slices.crop import SliceGeometry, pixel_area_mm2, prepare_labels, restore_map
from slicewise.slices.transform import prepare_slice

CONFIG = SliceConfig(size=96)
ALL = CONFIG.modalities


def head(
    shape: tuple[int, int], centre: tuple[float, float], radii: tuple[float, float], channels: int = 1
) -> NDArray[np.float32]:
    """An ellipse of smooth tissue on exact zero, ``[C, H, W]``."""
    rng = np.random.default_rng(1)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    inside = ((rows - centre[0]) / radii[0]) ** 2 + ((columns - centre[1]) / radii[1]) ** 2 < 1
    planes = [ndimage.gaussian_filter(rng.normal(0, 1, shape), 2) * 400 + 500 for _ in range(channels)]
    return (np.stack(planes) * inside).astype(np.float32)


def iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float((a & b).sum() / (a | b).sum())


def test_z_scores_rest_on_the_foreground_only() -> None:
    """Mean 0 and deviation 1 inside the head, however much background lies around it."""
    small = head((80, 80), (40, 40), (30, 30))
    prepared = prepare_slice(small, ["t1"], SliceConfig(size=64, clip=50, crop_margin=1.0, min_crop_fraction=0.0))
    values = small[0][prepared.foreground].astype(np.float64)
    assert prepared.foreground.sum() == (small[0] > 0).sum()
    wide = prepare_slice(
        np.pad(small, ((0, 0), (60, 60), (60, 60))), ["t1"], SliceConfig(size=64, min_crop_fraction=0)
    )
    narrow = prepare_slice(small, ["t1"], SliceConfig(size=64, min_crop_fraction=0))
    np.testing.assert_array_equal(wide.image, narrow.image)
    box = prepared.geometry
    assert box.box == (59, 59)
    whole = prepare_slice(small, ["t1"], SliceConfig(size=32, clip=50, crop_margin=1.0, min_crop_fraction=0.0))
    assert abs(float(whole.image[1].astype(np.float64).mean())) < 0.05
    assert values.std() > 10


def test_z_scores_by_hand() -> None:
    """Without resizing, the stored plane is (x - mean) / std of the head's pixels, and 0 elsewhere.

    The quantiles beyond which outliers are clipped are good to a part of their distance only.
    """
    config = SliceConfig(size=64, crop_margin=1.0, min_crop_fraction=1.0)
    image = head((64, 64), (31.5, 31.5), (25, 28))
    prepared = prepare_slice(image, ["flair"], config)
    assert prepared.geometry == SliceGeometry((64, 64), 0, 0, (64, 64))
    inside = image[0] > 0
    values = image[0][inside].astype(np.float64)
    clipped = np.clip(values, *np.quantile(values, config.outliers))
    expected = np.where(inside, np.clip((image[0] - clipped.mean()) / clipped.std(), -5, 5), 0)
    np.testing.assert_allclose(prepared.image[0], expected, atol=0.02)
    np.testing.assert_array_equal(prepared.foreground, inside)
    assert prepared.present.tolist() == [True, False, False, False]
    assert not prepared.image[1:].any()


@pytest.mark.parametrize(("gain", "shift"), [(3.0, 0.0), (0.01, 0.0), (1.0, 250.0), (7.5, -90.0), (1e4, 1e3)])
def test_affine_changes_of_intensity_change_nothing(gain: float, shift: float) -> None:
    image = head((120, 100), (55, 50), (45, 38), channels=4)
    before = prepare_slice(image, ALL, CONFIG)
    after = prepare_slice(image * np.float32(gain) + np.float32(shift), ALL, CONFIG)
    assert after.geometry == before.geometry
    np.testing.assert_array_equal(after.foreground, before.foreground)
    np.testing.assert_allclose(after.image.astype(np.float32), before.image.astype(np.float32), atol=0.01)


def test_the_answer_does_not_depend_on_the_type_of_the_numbers() -> None:
    image = np.rint(head((90, 90), (45, 45), (40, 36)).clip(0))
    expected = prepare_slice(image, ["t2"], CONFIG).image
    for kind in (np.uint16, np.int16, np.int32, np.float64, ">i2", ">f4"):
        np.testing.assert_array_equal(prepare_slice(image.astype(kind), ["t2"], CONFIG).image, expected)
    turned = np.asfortranarray(image)[:, ::1]
    np.testing.assert_array_equal(prepare_slice(turned, ["t2"], CONFIG).image, expected)


FRAMES = [
    ((160, 160), (80, 80), (60, 50), (1.0, 1.0)),
    ((240, 150), (120, 75), (90, 60), (1.0, 1.0)),  # not square
    ((120, 200), (25, 30), (24, 28), (1.0, 1.0)),  # the box reaches beyond the frame
    ((100, 180), (50, 90), (45, 80), (2.0, 1.1)),  # pixels are not square
    ((256, 90), (128, 45), (110, 40), (0.5, 1.4)),
]


@pytest.mark.parametrize(("shape", "centre", "radii", "pixel_mm"), FRAMES)
def test_labels_come_back_where_they_were(
    shape: tuple[int, int], centre: tuple[int, int], radii: tuple[int, int], pixel_mm: tuple[float, float]
) -> None:
    """Random blobs, through crop, resize and back, overlap themselves with IoU > 0.9."""
    config = SliceConfig(size=192)
    prepared = prepare_slice(head(shape, centre, radii), ["t1"], config, pixel_mm)
    rng = np.random.default_rng(0)
    for _ in range(5):
        blob = ndimage.gaussian_filter(rng.normal(0, 1, shape), 6)
        mask = (blob > np.quantile(blob[prepared.foreground], 0.75)) & prepared.foreground
        plane = prepare_labels(mask.astype(np.uint8) * 4, prepared.geometry, config.size)
        assert set(np.unique(plane)) == {0, 4}
        back = restore_map((plane == 4).astype(np.float32), prepared.geometry) >= 0.5
        assert iou(back, mask) > 0.9


@pytest.mark.parametrize(("top", "left"), [(0, 0), (3, 90), (150, 7), (75, 75)])
def test_padding_neither_inverts_nor_shifts(top: int, left: int) -> None:
    """A picture set into a black frame gives the same input, and maps land on the same anatomy."""
    image = head((120, 110), (60, 55), (50, 48))
    config = SliceConfig(size=96, min_crop_fraction=0.0)
    padded = np.zeros((1, 300, 310), dtype=np.float32)
    padded[:, top : top + 120, left : left + 110] = image
    before, after = prepare_slice(image, ["t1"], config), prepare_slice(padded, ["t1"], config)
    np.testing.assert_array_equal(before.image, after.image)
    plane = np.zeros((96, 96), dtype=np.float32)
    plane[30:50, 20:60] = 1
    small, large = restore_map(plane, before.geometry), restore_map(plane, after.geometry)
    np.testing.assert_array_equal(large[top : top + 120, left : left + 110], small)
    assert large.sum() == pytest.approx(small.sum())


def test_a_map_outside_the_box_is_zero() -> None:
    geometry = SliceGeometry((60, 70), 20, -10, (30, 30))
    restored = restore_map(np.ones((48, 48), dtype=np.float32), geometry)
    expected = np.zeros((60, 70), dtype=np.float32)
    expected[20:50, :20] = 1
    np.testing.assert_array_equal(restored, expected)


def test_the_crop_is_square_in_mm_and_its_area_adds_up() -> None:
    prepared = prepare_slice(head((100, 180), (50, 90), (45, 80)), ["t1"], CONFIG, (2.0, 1.1))
    height, width = prepared.geometry.box
    assert height * 2.0 == pytest.approx(width * 1.1, rel=0.02)
    area = pixel_area_mm2(prepared.geometry, CONFIG.size, (2.0, 1.1))
    assert area * CONFIG.size**2 == pytest.approx(height * width * 2.2)


def test_letters_beside_the_head_are_not_head() -> None:
    image = head((150, 150), (75, 75), (50, 50))
    clean = prepare_slice(image, ["t1"], CONFIG)
    image[0, 3:9, 3:12] = 900
    marked = prepare_slice(image, ["t1"], CONFIG)
    assert marked.geometry == clean.geometry
    assert not marked.foreground[:10, :13].any()


def test_an_unknown_modality_enters_by_its_channel() -> None:
    image = head((90, 90), (45, 45), (40, 36))
    as_unknown = prepare_slice(image, ["unknown"], SliceConfig(size=96, unknown_modality="t2"))
    np.testing.assert_array_equal(as_unknown.image, prepare_slice(image, ["t2"], CONFIG).image)
    assert as_unknown.present.tolist() == [False, False, False, True]


def test_a_constant_channel_is_missing_not_zero_divided() -> None:
    image = head((90, 90), (45, 45), (40, 36), channels=2)
    image[1] = 7
    prepared = prepare_slice(image, ["t1", "t2"], CONFIG)
    assert prepared.present.tolist() == [False, True, False, False]
    assert np.isfinite(prepared.image).all()


GOOD = head((40, 40), (20, 20), (15, 15), channels=2)
BAD: list[tuple[NDArray[np.generic], Sequence[str], str]] = [
    (np.where(GOOD > 0, np.nan, GOOD), ["t1", "t2"], "image holds NaN"),
    (np.where(GOOD > 0, np.inf, GOOD), ["t1", "t2"], "image holds NaN or infinite"),
    (np.full((1, 40, 40), 3.0), ["t1"], "image is constant"),
    (np.zeros((1, 40, 40)), ["t1"], "image is constant"),
    (GOOD[0], ["t1"], r"image has shape \[40, 40\]"),
    (GOOD[None], ["t1"], r"image has shape \[1, 2, 40, 40\]"),
    (np.zeros((1, 0, 40)), ["t1"], r"image has shape \[1, 0, 40\]"),
    (GOOD, ["t1"], "2 channels but modalities names 1"),
    (GOOD, ["t1", "t1"], "modalities: .*twice"),
    (GOOD, ["flair", "unknown"], "modalities: .*twice"),
    (GOOD, ["t1", "ct"], "modalities: 'ct'.*use flair, t1, t1ce, t2, unknown"),
]


@pytest.mark.parametrize(("image", "modalities", "said"), BAD)
def test_what_is_wrong_is_named(image: NDArray[np.generic], modalities: Sequence[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        prepare_slice(image, modalities, CONFIG)


NUMBERS = st.one_of(
    hnp.integer_dtypes(endianness="?"),
    hnp.unsigned_integer_dtypes(endianness="?"),
    hnp.floating_dtypes(endianness="?", sizes=(16, 32, 64)),
    hnp.boolean_dtypes(),
)
IMAGES = hnp.arrays(NUMBERS, hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=20))
NAMES = st.lists(st.sampled_from([*ALL, "unknown", "ct", ""]), max_size=5)


@settings(max_examples=150, deadline=None)
@given(IMAGES, NAMES, st.tuples(*[st.floats(0.1, 10)] * 2))
def test_any_array_is_prepared_or_refused(
    image: NDArray[np.generic], modalities: list[str], pixel_mm: tuple[float, float]
) -> None:
    """Whatever comes in: a finite, clipped result of the right shape, or an InputError."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # float64 beyond float32 overflows to what is refused
        try:
            prepared = prepare_slice(image, modalities, CONFIG, pixel_mm)
        except InputError:
            return
    assert prepared.image.shape == (4, 96, 96)
    assert np.abs(prepared.image).max() <= CONFIG.clip
    assert prepared.present.sum() >= 1
    back = restore_map(prepared.image[0].astype(np.float32), prepared.geometry)
    assert back.shape == image.shape[1:]
    assert prepare_labels(prepared.foreground.astype(np.uint8), prepared.geometry, 96).max() == 1


@settings(max_examples=60, deadline=None)
@given(hnp.array_shapes(min_dims=2, max_dims=2, min_side=3, max_side=64), st.integers(0, 2**31))
def test_any_textured_frame_is_accepted(shape: tuple[int, int], seed: int) -> None:
    """The property above would also hold of a function that refuses everything."""
    image = np.random.default_rng(seed).uniform(0, 900, (1, *shape)).astype(np.float32)
    assert prepare_slice(image, ["t1"], CONFIG).present[1]


@pytest.mark.parametrize("bad", [np.array([[["a", "b"]]]), np.array([[[{}, 1]]], dtype=object)])
def test_what_is_no_number_is_refused(bad: NDArray[np.generic]) -> None:
    with pytest.raises(InputError, match="image"):
        prepare_slice(bad, ["t1"], CONFIG)


@pytest.mark.parametrize("pixel_mm", [(0.0, 1.0), (-1.0, 1.0), (float("nan"), 1.0), (1.0, float("inf"))])
def test_an_impossible_spacing_is_refused(pixel_mm: tuple[float, float]) -> None:
    with pytest.raises(InputError, match="pixel_mm"):
        prepare_slice(GOOD, ["t1", "t2"], CONFIG, pixel_mm)


ELONGATED = """
import resource, sys
import numpy as np
from slicewise.config import SliceConfig
from slicewise.errors import InputError
from slicewise.slices.transform import prepare_slice
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
image = np.arange(200_000, dtype=np.float32).reshape(1, 1, -1)
try:
    prepare_slice(image, ["t1"], SliceConfig())
except InputError:
    sys.exit(0)
"""


def test_a_needle_of_a_picture_does_not_take_all_memory() -> None:
    """A 200 kB PNG of one row must not cost gigabytes: prepared cheaply or refused."""
    assert subprocess.run([sys.executable, "-c", ELONGATED], check=False, capture_output=True).returncode == 0
