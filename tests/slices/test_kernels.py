"""The compiled loops against numpy, scipy and Pillow."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from slicewise.config import SliceConfig
from slicewise.slices import kernels
from slicewise.slices.components import bounds, fill_and_clean
from slicewise.slices.transform import compile_loops, prepare_slice

FLOATS = st.floats(-65504, 65504, width=32)


@settings(max_examples=200, deadline=None)
@given(hnp.arrays(np.float32, (3, 17), elements=FLOATS))
def test_float16_is_rounded_as_numpy_does(values: NDArray[np.float32]) -> None:
    bits = np.empty(values.shape, dtype=np.uint16)
    kernels.to_half(values, bits)
    np.testing.assert_array_equal(bits, values.astype(np.float16).view(np.uint16))


def test_float16_at_its_edges() -> None:
    steps = np.concatenate([np.arange(0, 4097) * 2.0**-25, 2.0 ** np.arange(-30, 16), [65504.0, 1 + 2**-11]])
    values = np.concatenate([steps, -steps]).astype(np.float32)[None]
    bits = np.empty(values.shape, dtype=np.uint16)
    kernels.to_half(values, bits)
    np.testing.assert_array_equal(bits, values.astype(np.float16).view(np.uint16))


@settings(max_examples=300, deadline=None)
@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=24), elements=st.integers(0, 1)))
def test_holes_and_specks_are_those_of_scipy(mask: NDArray[np.uint8]) -> None:
    filled = ndimage.binary_fill_holes(mask)
    labels, count = ndimage.label(filled)
    areas = np.bincount(labels.ravel())
    areas[0] = 0
    expected = (areas >= 0.1 * areas.max())[labels] & (labels > 0) if count else filled
    got = mask.copy()
    box, area = fill_and_clean(got, 0.1)
    np.testing.assert_array_equal(got, expected)
    assert area == expected.sum()
    assert box == bounds(got)
    if count:
        rows, columns = np.nonzero(expected)
        assert box == (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1)
    else:
        assert box == (0, 0, 0, 0)


RANGES = [
    ("normal", np.random.default_rng(0).normal(1000, 200, 4000)),
    ("one spike", np.append(np.random.default_rng(1).normal(1000, 200, 4000), 32767)),
    ("ten spikes", np.append(np.random.default_rng(2).normal(50, 2, 4000), [1e6] * 10)),
    ("both sides", np.append(np.random.default_rng(3).uniform(0, 1, 4000), [-1e5, 1e5])),
    ("integers", np.random.default_rng(4).integers(0, 255, 4000).astype(float)),
]


@pytest.mark.parametrize(("name", "values"), RANGES)
@pytest.mark.parametrize("shares", [(0.005, 0.995), (0.01, 0.99), (0.25, 0.75)])
def test_quantiles_are_near_those_of_numpy(
    name: str, values: NDArray[np.float64], shares: tuple[float, float]
) -> None:
    expected = np.quantile(values, shares)
    got = kernels.robust_range(values.astype(np.float32), len(values), shares)
    np.testing.assert_allclose(got, expected, atol=0.04 * float(np.ptp(expected)), err_msg=name)


SQUARES = [  # (frame, square top, left, height, width, size)
    ((200, 180), (10, 5, 160, 160), 96),
    ((200, 180), (-20, -30, 240, 240), 96),
    ((63, 63), (0, 0, 63, 63), 160),
    ((150, 90), (20, -12, 75, 115), 64),
    ((40, 40), (3, 4, 7, 9), 32),
]


@pytest.mark.parametrize(("frame", "square", "size"), SQUARES)
def test_resampling_is_that_of_pillow(frame: tuple[int, int], square: tuple[int, int, int, int], size: int) -> None:
    """Pillow's anti-aliasing bilinear filter on the cut square."""
    rng = np.random.default_rng(5)
    plane = ndimage.gaussian_filter(rng.normal(0, 3, frame), 1).astype(np.float32)
    top, left, height, width = square
    padded = np.pad(plane, 300)
    cut = padded[300 + top : 300 + top + height, 300 + left : 300 + left + width]
    expected = np.asarray(Image.fromarray(np.ascontiguousarray(cut)).resize((size, size), Image.Resampling.BILINEAR))
    got = np.zeros((size, size), dtype=np.float16)
    kernels.resample(plane, (0, frame[0], 0, frame[1]), square, got.view(np.uint16))
    np.testing.assert_allclose(got, expected, atol=2e-3)


def test_a_patch_is_the_frame_with_zeros_around() -> None:
    """Resampling only the head's box gives the same bytes as resampling the whole frame."""
    rng = np.random.default_rng(6)
    plane = np.zeros((120, 100), dtype=np.float32)
    plane[30:80, 20:77] = rng.normal(0, 1, (50, 57))
    whole, part = np.zeros((64, 64), np.uint16), np.zeros((64, 64), np.uint16)
    kernels.resample(plane, (0, 120, 0, 100), (5, -4, 108, 108), whole)
    kernels.resample(np.ascontiguousarray(plane[30:80, 20:77]), (30, 80, 20, 77), (5, -4, 108, 108), part)
    np.testing.assert_array_equal(whole, part)


def test_copying_is_cutting() -> None:
    rng = np.random.default_rng(7)
    plane = rng.normal(0, 1, (60, 50)).astype(np.float32)
    for top, left in ((0, 0), (-10, 7), (20, -31), (55, 45), (70, 0)):
        expected = np.pad(plane, 100)[100 + top : 148 + top, 100 + left : 148 + left].astype(np.float16)
        got = np.zeros((48, 48), dtype=np.float16)
        kernels.copy_box(plane, (0, 60, 0, 50), (top, left, 48, 48), got.view(np.uint16))
        np.testing.assert_array_equal(got, expected)


@settings(max_examples=50, deadline=None)
@given(st.integers(3, 60), st.integers(3, 60), st.integers(0, 2**31), st.floats(-1e4, 1e4))
def test_moments_are_those_of_numpy(rows: int, columns: int, seed: int, offset: float) -> None:
    rng = np.random.default_rng(seed)
    plane = (rng.normal(0, 50, (rows, columns)) + offset).astype(np.float32)
    mask = rng.integers(0, 2, (rows, columns)).astype(np.uint8)
    mask[1, 1] = 1
    low, high = offset - 70, offset + 60
    values = np.clip(plane[mask > 0].astype(np.float64), np.float32(low), np.float32(high))
    got = kernels.moments(plane, mask, (0, rows, 0, columns), low, high)
    np.testing.assert_allclose(got, (values.mean(), values.std()), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("frame", "square", "size"), SQUARES)
def test_labels_are_the_nearest_pixels(frame: tuple[int, int], square: tuple[int, int, int, int], size: int) -> None:
    """Pillow's nearest filter on the cut square."""
    labels = np.random.default_rng(8).choice(np.array([0, 1, 2, 4], np.uint8), frame)
    top, left, height, width = square
    cut = np.pad(labels, 300)[300 + top : 300 + top + height, 300 + left : 300 + left + width]
    expected = np.asarray(Image.fromarray(cut.copy()).resize((size, size), Image.Resampling.NEAREST))
    got = np.zeros((size, size), dtype=np.uint8)
    kernels.nearest(labels, square, got)
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("writeable", [True, False])
@pytest.mark.parametrize("kind", [np.int16, np.float32])
def test_warming_up_leaves_nothing_to_compile(kind: type, writeable: bool) -> None:
    """The first request after it compiles no loop, whatever its number type and size."""
    config = SliceConfig(size=64)
    compile_loops(config)
    loops = [value for value in vars(kernels).values() if hasattr(value, "signatures")]
    before = [list(loop.signatures) for loop in loops]
    rng = np.random.default_rng(9)
    for size in (64, 70, 200):
        image = rng.uniform(0, 900, (1, size, size)).astype(kind)
        image.flags.writeable = writeable
        prepare_slice(image, ["t1"], config)
    assert [list(loop.signatures) for loop in loops] == before
