"""The four normalisations against plain numpy, and the head that they are restricted to."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from slicewise.config import SliceConfig, validate
from slicewise.errors import ConfigError
from slicewise.slices.foreground import find_foreground
from slicewise.slices.normalise import NYUL_SHARES, normalise
from slicewise.slices.transform import prepare_slice


def tissue(shape: tuple[int, int] = (120, 100)) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """An ellipse of smooth tissue with a few spikes, and its mask."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    inside = ((rows - 55) / 45) ** 2 + ((columns - 50) / 38) ** 2 < 1
    plane = ndimage.gaussian_filter(rng.normal(0, 1, shape), 2) * 400 + 900
    plane[40, 40:44] = 32767
    return (plane * inside).astype(np.float32), inside.astype(np.uint8)


def box_of(mask: NDArray[np.uint8]) -> tuple[int, int, int, int]:
    rows, columns = np.nonzero(mask)
    return int(rows.min()), int(rows.max()) + 1, int(columns.min()), int(columns.max()) + 1


def expected(name: str, plane: NDArray[np.float32], inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The same by numpy, from all of the head's pixels."""
    values = plane[inside].astype(np.float64)
    if name == "zscore":
        clipped = np.clip(values, *np.quantile(values, (0.005, 0.995)))
        scores = np.clip((plane - clipped.mean()) / clipped.std(), -5, 5)
    elif name == "nyul":
        scale = SliceConfig().standard_scale
        knots = np.quantile(values, NYUL_SHARES)
        scores = np.interp(plane, knots, scale)
        inner = (plane >= knots[0]) & (plane <= knots[-1])
        slopes = np.diff(scale) / np.diff(knots)
        outer = np.where(plane < knots[0], scale[0] + (plane - knots[0]) * slopes[0], 0)
        outer = np.where(plane > knots[-1], scale[-1] + (plane - knots[-1]) * slopes[-1], outer)
        scores = np.clip(np.where(inner, scores, outer), -5, 5)
    else:
        shares = (0.0, 1.0) if name == "minmax" else (0.01, 0.99)
        low, high = np.quantile(values, shares)
        scores = np.clip((plane - low) / (high - low), 0, 1)
    return np.where(inside, scores, 0.0)


@pytest.mark.parametrize("name", ["zscore", "minmax", "percentile", "nyul"])
def test_each_strategy_is_what_numpy_makes_of_it(name: str) -> None:
    plane, mask = tissue()
    config = validate(SliceConfig, {"normalisation": name})
    box = box_of(mask)
    patch = normalise(plane, mask, box, config)
    assert patch is not None
    wanted = expected(name, plane, mask > 0)[box[0] : box[1], box[2] : box[3]]
    tolerance = {"zscore": 0.03, "minmax": 1e-5, "percentile": 0.02, "nyul": 0.06}[name]
    np.testing.assert_allclose(patch, wanted, atol=tolerance)
    assert not patch[mask[box[0] : box[1], box[2] : box[3]] == 0].any()


@pytest.mark.parametrize("name", ["zscore", "percentile", "nyul"])
def test_a_few_spikes_change_little(name: str) -> None:
    """Against ``minmax``, which four spikes squeeze into a corner."""
    plane, mask = tissue()
    calm = plane.copy()
    calm[40, 40:44] = 900
    config = validate(SliceConfig, {"normalisation": name})
    before = normalise(calm, mask, box_of(mask), config)
    after = normalise(plane, mask, box_of(mask), config)
    assert before is not None
    assert after is not None
    usual = np.abs(before) < 2
    assert np.median(np.abs(before - after)[usual]) < 0.03
    squeezed = normalise(plane, mask, box_of(mask), validate(SliceConfig, {"normalisation": "minmax"}))
    assert squeezed is not None
    assert np.median(squeezed[squeezed > 0]) < 0.1


@pytest.mark.parametrize("name", ["zscore", "minmax", "percentile", "nyul"])
def test_a_constant_head_is_nothing_to_see(name: str) -> None:
    mask = np.zeros((50, 50), np.uint8)
    mask[10:40, 12:38] = 1
    config = validate(SliceConfig, {"normalisation": name})
    assert normalise((mask * 7).astype(np.int16), mask, box_of(mask), config) is None


@pytest.mark.parametrize("name", ["zscore", "minmax", "percentile", "nyul"])
def test_one_odd_pixel_in_a_constant_head_is_something(name: str) -> None:
    """Quantiles that fall together must not divide by zero, nor hide the one pixel."""
    mask = np.zeros((50, 50), np.uint8)
    mask[10:40, 12:38] = 1
    plane = (mask * 7).astype(np.int16)
    plane[20, 20] = 9
    patch = normalise(plane, mask, box_of(mask), validate(SliceConfig, {"normalisation": name}))
    assert patch is not None
    assert np.isfinite(patch).all()
    assert patch[10, 8] == patch.max() > np.median(patch)


def test_the_configuration_refuses_shares_that_do_not_rise() -> None:
    for wrong in ({"percentiles": [0.9, 0.1]}, {"outliers": [0.5, 0.5]}, {"standard_scale": [0.0] * 11}):
        with pytest.raises(ConfigError, match="must rise"):
            validate(SliceConfig, wrong)


FRACTION = SliceConfig().foreground_fraction


def skull(shape: tuple[int, int] = (160, 140)) -> NDArray[np.float32]:
    """A head with a bright rim of fat, a dark skull and a brain, on scanner noise."""
    rng = np.random.default_rng(1)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    radius = np.hypot((rows - shape[0] / 2) / (0.44 * shape[0]), (columns - shape[1] / 2) / (0.42 * shape[1]))
    plane = np.where(radius < 1.0, 220.0, 0) - np.where(radius < 0.93, 200.0, 0) + np.where(radius < 0.86, 90.0, 0)
    return (plane + np.abs(rng.normal(0, 2.5, shape))).astype(np.float32)


@pytest.mark.parametrize("bar", [0, 255, 128])
@pytest.mark.parametrize("widths", [((0, 0), (40, 40)), ((30, 12), (0, 0)), ((20, 20), (35, 5))])
def test_letterboxing_changes_nothing(bar: int, widths: tuple[tuple[int, int], tuple[int, int]]) -> None:
    """Bars of any brightness, noisy as JPEG makes them, are not head."""
    rng = np.random.default_rng(2)
    plane = skull()
    framed = np.pad(plane, widths, constant_values=np.nan)
    noise = bar + rng.normal(0, 1.0, framed.shape)
    framed = np.where(np.isnan(framed), noise, framed).clip(0, 255).astype(np.float32)
    alone, _, _ = find_foreground([plane], FRACTION)
    mask, box, _ = find_foreground([framed], FRACTION)
    (top, bottom), (left, right) = widths
    inner = mask[top : mask.shape[0] - bottom, left : mask.shape[1] - right]
    agree = (inner & alone).sum() / (inner | alone).sum()
    assert agree > 0.98
    assert mask.sum() - inner.sum() < 0.01 * inner.sum()
    assert box[0] >= top - 2
    assert box[2] >= left - 2


@pytest.mark.parametrize("at", [0, 1, 4])
@pytest.mark.parametrize("level", [60, 255])
def test_a_line_around_the_picture_is_not_filled(at: int, level: int) -> None:
    """Viewers draw such frames; filling the holes of one would make everything head."""
    plane = skull()
    alone, _, _ = find_foreground([plane], FRACTION)
    for index in (at, -1 - at):
        plane[index, at : plane.shape[1] - at] = level
        plane[at : plane.shape[0] - at, index] = level
    mask, _, _ = find_foreground([plane], FRACTION)
    assert (mask & alone).sum() / (mask | alone).sum() > 0.97


def test_a_grey_ground_in_a_black_frame_is_not_head() -> None:
    plane = skull() + 25
    alone, _, _ = find_foreground([skull()], FRACTION)
    mask, box, _ = find_foreground([np.pad(plane, ((20, 30), (15, 40)))], FRACTION)
    inner = mask[20:-30, 15:-40]
    assert (inner & alone).sum() / (inner | alone).sum() > 0.97
    assert mask.sum() == inner.sum()
    rows, columns = np.nonzero(mask)
    assert box == (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1)


def test_tissue_that_fills_the_picture_is_kept() -> None:
    """A zoomed picture has marked rows at its edge and further in."""
    rng = np.random.default_rng(3)
    plane = (ndimage.gaussian_filter(rng.normal(0, 1, (90, 90)), 2) * 300 + 500).astype(np.float32)
    mask, box, _ = find_foreground([plane], FRACTION)
    assert mask.mean() > 0.98
    assert box == (0, 90, 0, 90)


def test_the_head_includes_its_skull_and_not_the_noise() -> None:
    mask, box, _ = find_foreground([skull()], FRACTION)
    rows, columns = np.mgrid[:160, :140]
    inside = np.hypot((rows - 80) / (0.44 * 160), (columns - 70) / (0.42 * 140)) < 1
    assert (mask[inside] == 1).mean() > 0.99
    assert (mask[~inside] == 0).mean() > 0.99
    assert box[0] >= 8
    assert box[1] <= 152


def test_ghosts_beside_the_head_are_background() -> None:
    """A head that moves, or blood that flows, leaves faint copies along the phase direction."""
    alone, _, _ = find_foreground([skull()], FRACTION)
    ghosts = np.zeros((160, 140), np.float32)
    ghosts[55:105] = np.random.default_rng(4).uniform(8, 18, (50, 140))
    mask, box, _ = find_foreground([np.maximum(skull(), ghosts)], FRACTION)
    assert (mask & alone).sum() / (mask | alone).sum() > 0.99
    assert box[2] >= 8
    assert box[3] <= 132


def test_a_channel_with_a_bright_ground_does_not_hide_the_head() -> None:
    """Sequences that keep the sign of the signal are grey where nothing is, and darker in the brain."""
    alone, _, _ = find_foreground([skull()], FRACTION)
    signed = 120 - skull() / 4
    for planes in ([skull(), signed], [signed, skull()]):
        mask, _, _ = find_foreground(planes, FRACTION)
        np.testing.assert_array_equal(mask, alone)


def test_a_skull_stripped_brain_is_its_own_mask() -> None:
    plane, mask = tissue()
    found, _, area = find_foreground([plane.astype(np.int16)], FRACTION)
    np.testing.assert_array_equal(found, mask)
    assert area == mask.sum()


@pytest.mark.parametrize("crop", ["brain", "frame"])
def test_the_whole_frame_can_be_kept(crop: str) -> None:
    plane, _ = tissue((128, 128))
    prepared = prepare_slice(plane[None], ["t1"], validate(SliceConfig, {"crop": crop, "size": 128}))
    assert (prepared.geometry.box == (128, 128)) is (crop == "frame")
    if crop == "frame":
        assert (prepared.image[1] != 0).sum() <= prepared.foreground.sum()
        assert (prepared.geometry.top, prepared.geometry.left) == (0, 0)
