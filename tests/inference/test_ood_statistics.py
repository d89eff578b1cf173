"""The statistics of a prepared slice, against numpy spelled out, and on slices with next to nothing in them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from slicewise.inference.slice_statistics import INTENSITY, SHAPE, describe_slices, pool_features, pooled_width

SIDE = 48


def a_slice(seed: int, channels: int = 2, side: int = SIDE) -> NDArray[np.float32]:
    """Normalised noise in an ellipse, ``[C, side, side]``."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side] / side - 0.5
    head = (rows / 0.42) ** 2 + ((columns - 0.03) / 0.33) ** 2 < 1
    return np.where(head, rng.normal(0, 1, (channels, side, side)), 0).astype(np.float32)


def named(values: NDArray[np.float32], names: tuple[str, ...]) -> dict[str, float]:
    return dict(zip(names, values.tolist(), strict=True))


def test_intensities_against_numpy_and_scipy() -> None:
    """Every other row is looked at where neighbours do not matter, so the reference takes every other row too."""
    image = a_slice(0, 1)
    head = image[0] != 0
    values = image[0][head].astype(np.float64)
    scaled = np.where(head, (image[0] - values.mean()) / values.std(), 0)
    half, inside = scaled[::2], head[::2]
    found = named(describe_slices(image[None]).intensity[0, 0], INTENSITY)
    width = (half.max() - half.min()) / 512
    for share in (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98):
        expected = np.quantile(half[inside], share)
        assert found[f"quantile_{round(100 * share):02d}"] == pytest.approx(expected, abs=2 * width)
    sample = half[inside]
    assert found["skewness"] == pytest.approx((sample**3).mean(), abs=1e-4)
    assert found["log_kurtosis"] == pytest.approx(np.log((sample**4).mean() + 1e-3), abs=1e-4)
    assert found["cell_11"] == pytest.approx(scaled[12:24, 12:24].mean(), abs=1e-5)
    both = (head & head[:, ::-1])[::2]
    mirror = stats.pearsonr(np.r_[half[both], half[:, ::-1][both]], np.r_[half[:, ::-1][both], half[both]])
    assert found["left_right"] == pytest.approx(mirror.statistic, abs=1e-4)


def test_texture_against_numpy() -> None:
    image = a_slice(1, 1)
    head = image[0] != 0
    values = image[0][head]
    scaled = np.where(head, (image[0] - values.mean()) / values.std(), 0)
    steps, edges = [], 0
    for row in range(0, SIDE - 2, 2):
        for column in range(SIDE - 2):
            for down, right in ((0, 1), (1, 0)):
                if head[row, column] and head[row + down, column + right]:
                    steps.append(abs(scaled[row + down, column + right] - scaled[row, column]))
    edges = np.mean(np.array(steps) > 1)
    found = named(describe_slices(image[None]).intensity[0, 0], INTENSITY)
    assert found["log_gradient"] == pytest.approx(np.log(np.mean(steps) + 1e-3), abs=1e-4)
    assert found["edge_share"] == pytest.approx(edges, abs=1e-4)


def test_the_shape_of_a_rectangle_by_hand() -> None:
    """20 rows (from 10) of 30 pixels (from 8) in 48×48: 600 pixels, a perimeter of 100 steps."""
    image = np.zeros((1, 1, 48, 48), dtype=np.float32)
    image[0, 0, 10:30, 8:38] = np.random.default_rng(0).normal(1, 0.1, (20, 30))
    found = named(describe_slices(image).shape[0], SHAPE)
    assert found["area"] == pytest.approx(600 / 2304)
    assert found["log_aspect"] == pytest.approx(np.log(20 / 30))
    assert found["extent"] == pytest.approx(1)
    assert found["left_right_overlap"] == pytest.approx(28 / 30)  # columns 10 to 37 have their mirror image
    assert found["top_bottom_overlap"] == pytest.approx(12 / 20)  # rows 18 to 29
    assert found["log_perimeter"] == pytest.approx(np.log(101 / np.sqrt(600)))
    assert found["centre_row"] == pytest.approx((19.5 - 23.5) / 48)
    assert found["centre_column"] == pytest.approx((22.5 - 23.5) / 48)


def test_scale_and_offset_of_the_head_do_not_matter() -> None:
    image = a_slice(2)
    other = np.where(image != 0, 7 * image + 30, 0).astype(np.float32)
    one, two = describe_slices(image[None]), describe_slices(other[None])
    np.testing.assert_allclose(one.intensity, two.intensity, atol=2e-3)
    np.testing.assert_array_equal(one.shape, two.shape)


def test_a_missing_channel_is_zero_and_changes_nothing_in_the_others() -> None:
    image = a_slice(3, 3)
    less = image.copy()
    less[1] = 0
    found, full = describe_slices(less[None]), describe_slices(image[None])
    assert found.present.tolist() == [[True, False, True]]
    assert not found.intensity[0, 1].any()
    np.testing.assert_array_equal(found.intensity[0, [0, 2]], full.intensity[0, [0, 2]])


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(["one pixel", "one row", "constant", "two values", "huge", "empty", "full"]),
    channels=st.integers(1, 4),
    half=st.booleans(),
)
def test_whatever_is_in_a_slice_its_statistics_are_finite(kind: str, channels: int, half: bool) -> None:
    image = np.zeros((1, channels, 32, 32), dtype=np.float32)
    fill = {
        "one pixel": (slice(5, 6), slice(5, 6), 1.0),
        "one row": (slice(5, 6), slice(0, 32), 2.0),
        "constant": (slice(4, 20), slice(4, 20), -3.0),
        "two values": (slice(4, 20), slice(4, 20), 1.0),
        "huge": (slice(4, 20), slice(4, 20), 6e4),
        "full": (slice(0, 32), slice(0, 32), 1.0),
    }
    if kind in fill:
        rows, columns, value = fill[kind]
        image[0, 0, rows, columns] = value
    if kind == "two values":
        image[0, 0, 8, 8] = -1
    found = describe_slices(image.astype(np.float16) if half else image)
    assert np.isfinite(found.intensity).all()
    assert np.isfinite(found.shape).all()


def test_each_slice_is_described_for_itself() -> None:
    images = np.stack([a_slice(seed) for seed in range(4)])
    together = describe_slices(images)
    for at, image in enumerate(images):
        alone = describe_slices(image[None])
        assert alone.intensity[0].tobytes() == together.intensity[at].tobytes()
        assert alone.shape[0].tobytes() == together.shape[at].tobytes()


def test_pooled_features_are_mean_and_deviation_of_all_levels_but_the_finest() -> None:
    torch.manual_seed(0)
    levels = [torch.randn(3, width, side, side) + 2 for width, side in ((4, 16), (6, 8), (5, 4))]
    found = pool_features(levels)
    assert found.shape == (3, pooled_width((4, 6, 5))) == (3, 22)
    expected = [part for level in levels[1:] for part in (level.mean((2, 3)), level.std((2, 3), correction=0))]
    np.testing.assert_allclose(found, torch.cat(expected, dim=1).numpy(), atol=1e-5)
    assert not pool_features([levels[0], torch.zeros(1, 6, 8, 8)]).any()
