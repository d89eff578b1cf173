"""Augmentation: each change against its definition or an independent implementation, and what none may do."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.transforms import AdjustContrast
from numpy.polynomial import polynomial
from numpy.typing import NDArray
from scipy import ndimage, optimize

from slicewise.config import AUGMENT_PRESETS, AugmentConfig, load_config, modes, validate
from slicewise.errors import ConfigError
from slicewise.slices.augment import augment, drop_modalities
from slicewise.slices.batches import Batch

PRESETS = sorted(set(AUGMENT_PRESETS) - {"none"})
KINDS: dict[str, dict[str, float]] = {
    "flip": {"flip": 1},
    "rotate": {"rotate_share": 1, "rotate_degrees": 40},
    "scale": {"scale_share": 1, "scale": 0.3},
    "elastic": {"elastic_share": 1, "elastic": 0.05},
    "brightness": {"brightness_share": 1, "brightness": 1},
    "contrast": {"contrast_share": 1, "contrast": 0.8},
    "gamma": {"gamma_share": 1, "gamma": 2},
    "bias": {"bias_share": 1, "bias": 1},
    "blur": {"blur_share": 1, "blur": 3},
    "noise": {"noise_share": 1, "noise": 1},
    "dropout": {"modality_dropout": 0.6},
}
SPATIAL = ("flip", "rotate", "scale", "elastic")
INTENSITY = ("brightness", "contrast", "gamma", "bias", "blur", "noise")


def only(*kinds: str) -> AugmentConfig:
    keys: dict[str, Any] = {key: value for kind in kinds for key, value in KINDS[kind].items()}
    return AugmentConfig(preset="none", **keys)


def as_batch(image: torch.Tensor, regions: torch.Tensor | None = None) -> Batch:
    n, _, height, width = image.shape
    ones = torch.ones(n)
    if regions is None:
        regions = torch.zeros(n, 3, height, width)
    return Batch(image, regions, torch.ones(n, 3), ones, ones, np.arange(n))


def a_batch(n: int = 8, size: int = 48, seed: int = 4) -> Batch:
    """A round head of z-scores that lacks its last modality in every other slice, and a blob in each region."""
    axis = torch.arange(size) - (size - 1) / 2
    head = (axis[:, None].square() + axis[None].square()).sqrt() < 0.42 * size
    image = torch.randn(n, 4, size, size, generator=torch.Generator().manual_seed(seed)) * head
    image[::2, 3] = 0
    regions = torch.zeros(n, 3, size, size)
    regions[:, 0, size // 4 : size // 2, size // 3 : size // 2] = 1
    regions[:, 1, size // 4 + 2 : size // 2 - 2, size // 3 + 2 : size // 2] = 1
    return as_batch(image, regions)


def changed(batch: Batch, config: AugmentConfig, seed: int = 0) -> Batch:
    return augment(batch, config, torch.Generator().manual_seed(seed))


def positions(n: int, config: AugmentConfig, size: int = 64) -> tuple[NDArray[np.float64], Batch, Batch]:
    """Where each pixel of a moved slice comes from, ``[N, 2, H, W]`` in pixels (NaN: from outside), by ramps."""
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    ramps = torch.stack([rows, columns, torch.zeros_like(rows)]).float().expand(n, 3, -1, -1) + 1000
    noise = torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(9))
    before = as_batch(ramps.contiguous(), blobs(noise))
    after = changed(before, config)
    value = after.image.double().numpy() - 1000
    partly_outside = np.abs(value[:, 2:]) > 1e-2
    return np.where(partly_outside, np.nan, value[:, :2]), before, after


def blobs(noise: torch.Tensor) -> torch.Tensor:
    smooth = ndimage.gaussian_filter(noise.numpy(), (0, 0, 3, 3))
    return torch.from_numpy(smooth > smooth.mean()).float()


def linear_part(found: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The matrix and offset about the middle that explain one slice's positions ``[2, H, W]``, checked to 0.02 px."""
    size = found.shape[-1]
    middle = (size - 1) / 2
    inside = np.isfinite(found).all(axis=0)
    inside &= ndimage.binary_erosion(inside, iterations=2)
    target = np.stack(np.nonzero(inside)) - middle
    source = found[:, inside] - middle
    design = np.vstack([target, np.ones(target.shape[1])]).T
    solution, *_ = np.linalg.lstsq(design, source.T, rcond=None)
    assert np.abs(design @ solution - source.T).max() < 0.02
    return solution[:2].T, solution[2]


# What no change may do.


@pytest.mark.parametrize("name", [*KINDS, *PRESETS])
def test_what_no_change_may_do(name: str) -> None:
    config = only(name) if name in KINDS else AugmentConfig(preset=name)  # type: ignore[arg-type]
    batch = a_batch()
    copy = replace(batch, image=batch.image.clone(), regions=batch.regions.clone())
    for seed in range(4):
        after = changed(batch, config, seed)
        assert after.image.shape == batch.image.shape
        assert after.regions.shape == batch.regions.shape
        assert after.image.dtype == after.regions.dtype == torch.float32
        assert torch.isfinite(after.image).all()
        assert set(after.regions.unique().tolist()) <= {0.0, 1.0}
        assert not after.image[::2, 3].any()  # missing stays missing
        assert after.image.flatten(2).any(dim=2).any(dim=1).all()  # each slice keeps one
        assert not (after.regions[:, 1] > after.regions[:, 0]).any()
        for corner in (0, -1):
            assert not after.image[:, :, corner, corner].any()
        assert not torch.equal(after.image, batch.image)
        for field in fields(Batch):
            if field.name not in ("image", "regions"):
                assert getattr(after, field.name) is getattr(batch, field.name)
    assert torch.equal(batch.image, copy.image)
    assert torch.equal(batch.regions, copy.regions)


@pytest.mark.parametrize("kind", [*INTENSITY, "dropout"])
def test_intensity_changes_leave_background_and_regions_alone(kind: str) -> None:
    batch = a_batch()
    after = changed(batch, only(kind))
    assert not after.image[batch.image == 0].any()
    assert torch.equal(after.regions, batch.regions)
    present = batch.image.flatten(2).any(dim=2)
    if kind != "dropout":
        assert torch.equal(after.image.flatten(2).any(dim=2), present)


@pytest.mark.parametrize("kind", list(KINDS))
def test_share_or_strength_zero_is_the_identity_to_the_bit(kind: str) -> None:
    batch = a_batch()
    for key in KINDS[kind]:
        after = changed(batch, only(kind).model_copy(update={key: 0.0}))
        assert torch.equal(after.image, batch.image)
        assert torch.equal(after.regions, batch.regions)


@pytest.mark.parametrize("preset", PRESETS)
def test_the_generator_decides_everything(preset: Any) -> None:
    batch, config = a_batch(), AugmentConfig(preset=preset)
    first = changed(batch, config, 1)
    torch.manual_seed(torch.seed())
    torch.rand(7)
    before = torch.get_rng_state()
    again = changed(batch, config, 1)
    assert torch.equal(before, torch.get_rng_state())  # the network's dropout draws from there
    assert torch.equal(first.image, again.image)
    assert torch.equal(first.regions, again.regions)
    assert not torch.equal(first.image, changed(batch, config, 2).image)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_slice_does_not_depend_on_its_neighbours(preset: Any) -> None:
    batch, other = a_batch(), a_batch(seed=5)
    mixed = replace(batch, image=other.image.clone(), regions=torch.zeros_like(batch.regions))
    mixed.image[3], mixed.regions[3] = batch.image[3], batch.regions[3]
    config = AugmentConfig(preset=preset)
    for seed in range(5):
        one, two = changed(batch, config, seed), changed(mixed, config, seed)
        assert torch.equal(one.image[3], two.image[3])
        assert torch.equal(one.regions[3], two.regions[3])


@pytest.mark.parametrize("kind", [*SPATIAL, *INTENSITY])
def test_switching_one_change_off_leaves_the_others(kind: str) -> None:
    """The streams are apart: with noise off, say, the same slices turn by the same angles."""
    batch = a_batch()
    without = changed(batch, only(*(set(SPATIAL) - {"flip"})))
    beside = changed(batch, only(*(set(SPATIAL) - {"flip"}), *(set(INTENSITY) & {kind})))
    assert torch.equal(without.regions, beside.regions)


@given(
    strengths=st.fixed_dictionaries(
        {
            name: st.floats(0, limit)
            for name, limit in {
                "flip": 1.0,
                "rotate_degrees": 180.0,
                "scale": 0.9,
                "elastic": 0.05,
                "brightness": 2.0,
                "contrast": 0.99,
                "gamma": 3.0,
                "bias": 2.0,
                "blur": 4.0,
                "noise": 2.0,
                "modality_dropout": 0.99,
            }.items()
        }
    ),
    share=st.floats(0, 1),
    seed=st.integers(0, 2**40),
    constant=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_any_strength_gives_finite_slices(strengths: dict[str, Any], share: float, seed: int, constant: bool) -> None:
    shares: dict[str, Any] = {key: share for key in AugmentConfig.model_fields if key.endswith("_share")}
    batch = a_batch(3, 32)
    if constant:  # a head without any contrast has neither spread nor range
        batch = replace(batch, image=torch.where(batch.image != 0, 1.0, 0.0))
    after = changed(batch, AugmentConfig(preset="none", **strengths, **shares), seed)
    assert torch.isfinite(after.image).all()
    assert not after.image[::2, 3].any()
    assert set(after.regions.unique().tolist()) <= {0.0, 1.0}
    head = after.image.any(dim=1, keepdim=True)
    if strengths["modality_dropout"] == 0 and strengths["contrast"] == 0 and not constant:
        assert not (after.regions[:, :1].bool() & ~head).any() or strengths["scale"] > 0.5


# Each change by itself.


def test_a_flip_is_left_to_right_and_exact() -> None:
    batch = a_batch()
    after = changed(batch, only("flip"))
    assert torch.equal(after.image, batch.image.flip(3))
    assert torch.equal(after.regions, batch.regions.flip(3))


def test_about_the_given_share_is_flipped() -> None:
    batch = a_batch(400, 16)
    after = changed(batch, AugmentConfig(preset="none", flip=0.3))
    flipped = (after.image != batch.image).flatten(1).any(dim=1)
    assert float(flipped.float().mean()) == pytest.approx(0.3, abs=0.07)


def test_a_rotation_turns_about_the_middle_within_its_limit() -> None:
    found, _, _ = positions(24, only("rotate"))
    angles = []
    for slice_found in found:
        matrix, offset = linear_part(slice_found)
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(2), atol=2e-3)
        np.testing.assert_allclose(offset, 0, atol=0.02)
        angles.append(math.degrees(math.atan2(matrix[0, 1], matrix[0, 0])))
    assert max(map(abs, angles)) <= 40.1
    assert min(angles) < -15
    assert max(angles) > 15


def test_a_rotation_gives_scipys_values() -> None:
    size = 64
    found, _, _ = positions(6, only("rotate"), size)
    noise = torch.rand(6, 2, size, size, generator=torch.Generator().manual_seed(0)) + 0.5
    after = changed(as_batch(noise), only("rotate")).image.numpy()
    for index in range(6):
        matrix, _ = linear_part(found[index])
        middle = np.full(2, (size - 1) / 2)
        expected = ndimage.affine_transform(noise[index, 0].numpy(), matrix, middle - matrix @ middle, order=1)
        inner = np.isfinite(found[index]).all(axis=0)
        inner = ndimage.binary_erosion(inner, iterations=3)
        np.testing.assert_allclose(after[index, 0][inner], expected[inner], atol=2e-3)


def test_a_zoom_keeps_the_middle_and_its_limit() -> None:
    found, _, _ = positions(24, only("scale"))
    factors = []
    for slice_found in found:
        matrix, offset = linear_part(slice_found)
        np.testing.assert_allclose(offset, 0, atol=0.02)
        np.testing.assert_allclose(matrix, matrix[0, 0] * np.eye(2), atol=1e-3)
        factors.append(matrix[0, 0])
    assert 0.699 <= min(factors) < 0.85
    assert 1.15 < max(factors) <= 1.301


def test_elastic_displacement_is_smooth_bounded_and_never_folds() -> None:
    size = 64
    found, _, _ = positions(24, only("elastic"), size)
    rows, columns = np.mgrid[:size, :size]
    displacement = found - np.stack([rows, columns])
    largest = np.nanmax(np.abs(displacement), axis=(1, 2, 3))
    assert largest.max() < 1.3 * 0.05 * size  # bicubic interpolation overshoots its lattice a little
    assert largest.max() > 0.4 * 0.05 * size
    gradient = np.stack(np.gradient(found, axis=(2, 3)), axis=1)  # [N, by row/column, of row/column, H, W]
    folding = gradient[:, 0, 0] * gradient[:, 1, 1] - gradient[:, 0, 1] * gradient[:, 1, 0]
    assert np.nanmin(folding) > 0.05


@pytest.mark.parametrize("kinds", [("rotate",), ("scale",), ("elastic",), SPATIAL])
def test_regions_come_from_where_the_image_comes_from(kinds: tuple[str, ...]) -> None:
    found, before, after = positions(8, only(*kinds))
    inside = np.isfinite(found).all(axis=1)
    for index in range(8):
        near = np.where(inside[index], found[index], 0)
        clear = inside[index] & (np.abs(near - np.floor(near) - 0.5) > 0.01).all(axis=0)
        row, column = np.rint(near).astype(int)
        expected = before.regions[index].numpy()[:, row, column]
        assert clear.mean() > 0.3
        assert np.array_equal(after.regions[index].numpy()[:, clear], expected[:, clear])


@pytest.mark.parametrize("preset", PRESETS)
def test_a_marked_blob_keeps_its_label(preset: Any) -> None:
    image, regions = torch.zeros(16, 2, 64, 64), torch.zeros(16, 3, 64, 64)
    image[:, :, 8:56, 8:56] = 1.0
    image[:, :, 20:32, 26:40] = 9.0
    regions[:, 0, 20:32, 26:40] = 1.0
    config = AugmentConfig(preset=preset, gamma=0, bias=0, blur=0, noise=0, modality_dropout=0, brightness=0)
    after = changed(as_batch(image, regions), config)
    for bright, labelled in zip(after.image[:, 0] > 5, after.regions[:, 0] > 0, strict=True):
        assert labelled.any()
        distance = np.subtract(*(ndimage.center_of_mass(mask.numpy()) for mask in (bright, labelled)))
        assert np.linalg.norm(distance) < 0.5
        assert float((bright & labelled).sum() / (bright | labelled).sum()) > 0.85


def full_planes(n: int = 6, size: int = 40, seed: int = 0) -> torch.Tensor:
    """Planes that are head all over, so that whole-picture references apply."""
    noise = torch.randn(n, 2, size, size, generator=torch.Generator().manual_seed(seed)).numpy()
    return torch.from_numpy(ndimage.gaussian_filter(noise, (0, 0, 1.5, 1.5)) * 3 + 0.01).float()


def pairs(kind: str) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    image = full_planes()
    after = changed(as_batch(image), only(kind)).image
    return list(zip(image.flatten(0, 1).double().numpy(), after.flatten(0, 1).double().numpy(), strict=True))


@pytest.mark.parametrize("kind", ["contrast", "brightness"])
def test_levels_are_a_line_about_the_mean(kind: str) -> None:
    for before, after in pairs(kind):
        gain, lift = np.polyfit(before.ravel(), after.ravel(), 1)
        np.testing.assert_allclose(after, gain * before + lift, atol=1e-4)
        rise = (after.mean() - before.mean()) / before.std()
        if kind == "contrast":
            assert 0.19 < gain < 1.81
            assert rise == pytest.approx(0, abs=1e-4)
        else:
            assert gain == pytest.approx(1, abs=1e-4)
            assert 1e-4 < abs(rise) <= 1.001


def test_gamma_gives_monais_values_and_keeps_the_range() -> None:
    exponents = []
    for before, after in pairs("gamma"):
        span = before.max() - before.min()
        middle = np.unravel_index(np.argsort(before, axis=None)[before.size // 2], before.shape)
        share = [(picture[middle] - before.min()) / span for picture in (before, after)]
        exponent = math.log(share[1]) / math.log(share[0])
        exponents.append(exponent)
        expected = AdjustContrast(gamma=exponent)(torch.from_numpy(before[None]).float())[0].numpy()
        np.testing.assert_allclose(after, expected, atol=5e-3 * span)
        assert after.min() == pytest.approx(before.min(), abs=1e-4)
        assert after.max() == pytest.approx(before.max(), abs=1e-4)
    assert 1 / 3.01 < min(exponents) < 0.9
    assert 1.1 < max(exponents) < 3.01


def test_the_bias_field_is_an_exponential_of_a_cubic() -> None:
    for before, after in pairs("bias"):
        above = before - before.min()
        clear = above > 0.3
        field = np.log((after - before.min())[clear] / above[clear])
        rows, columns = (index / 20 - 1 for index in np.nonzero(clear))
        terms = polynomial.polyvander2d(rows, columns, [3, 3])
        cubic = [i * 4 + j for i in range(4) for j in range(4 - i)]
        fit, *_ = np.linalg.lstsq(terms[:, cubic], field, rcond=None)
        np.testing.assert_allclose(terms[:, cubic] @ fit, field, atol=2e-4)
        assert 1e-3 < np.abs(field).max() <= 1.001


def test_blur_gives_scipys_values_away_from_the_edge() -> None:
    widths = []
    for before, after in pairs("blur"):

        def apart(width: float, before: NDArray[np.float64] = before, after: NDArray[np.float64] = after) -> float:
            return float(np.abs(ndimage.gaussian_filter(before, width) - after)[14:-14, 14:-14].max())

        best = min(np.linspace(0.02, 3, 60), key=apart)
        bounds = (max(0.01, best - 0.06), best + 0.06)
        best = optimize.minimize_scalar(apart, bounds=bounds, method="bounded").x
        assert apart(best) < 0.01 * before.std()
        widths.append(best)
    assert max(widths) <= 3.02
    assert max(widths) > 1.5


def test_blur_does_not_smear_the_background_into_the_head() -> None:
    image = torch.zeros(4, 2, 40, 40)
    image[:, :, 10:30, 10:30] = 2.5
    after = changed(as_batch(image), only("blur")).image
    torch.testing.assert_close(after, image)


def test_noise_is_normal_and_as_strong_as_told() -> None:
    levels = []
    for before, after in pairs("noise"):
        noise = (after - before) / before.std()
        levels.append(noise.std())
        assert abs(noise.mean()) < 4 * noise.std() / 40
        assert np.mean((noise / noise.std()) ** 4) == pytest.approx(3, abs=0.7)
    assert max(levels) <= 1.05
    assert max(levels) > 3 * min(levels)


def test_modalities_change_each_by_itself() -> None:
    image = full_planes()[:, :1].expand(-1, 4, -1, -1).contiguous()
    for kind in INTENSITY:
        after = changed(as_batch(image), only(kind)).image
        assert not torch.equal(after[:, 0], after[:, 1]), kind


@pytest.mark.parametrize("share", [0.0, 0.25, 0.6])
def test_modalities_are_dropped_at_the_given_rate(share: float) -> None:
    """Of four, each is lost with the given probability, but for the slice that would lose all."""
    kept = drop_modalities(torch.ones(4000, 4, 2, 2), share, torch.Generator().manual_seed(0))[:, :, 0, 0]
    assert set(kept.unique().tolist()) <= {0.0, 1.0}
    assert float(1 - kept.mean()) == pytest.approx(share - share**4 / 4, abs=0.015)
    assert kept.any(dim=1).all()


def test_dropping_modalities_leaves_each_slice_one_that_it_has() -> None:
    image = torch.randn(200, 4, 4, 4)
    image[:100, 1:] = 0
    dropped = drop_modalities(image, 0.9, torch.Generator().manual_seed(0))
    present = (dropped != 0).flatten(2).any(dim=2)
    assert present.any(dim=1).all()
    assert torch.equal(dropped[:100], image[:100])
    assert present[100:].sum() < 200


# The configuration.


def test_a_preset_fills_what_is_not_named() -> None:
    config = AugmentConfig(preset="moderate", elastic=0.0, flip=0.1)
    assert config.model_dump() == {
        **dict.fromkeys(AugmentConfig.model_fields, 0.0),
        **AUGMENT_PRESETS["moderate"],
        "preset": "moderate",
        "elastic": 0.0,
        "flip": 0.1,
    }
    assert AugmentConfig() == AugmentConfig(preset="minimal")
    assert validate(AugmentConfig, config.model_dump(mode="json")) == config


def test_presets_grow_in_strength() -> None:
    for key in set(AugmentConfig.model_fields) - {"preset"}:
        strengths = [AUGMENT_PRESETS[name].get(key, 0.0) for name in ("none", "minimal", "moderate", "aggressive")]
        if not key.endswith("_share"):
            assert strengths == sorted(strengths), key


def test_a_preset_is_chosen_and_overridden_from_outside() -> None:
    words = ["train.augment.preset=aggressive", "train.augment.noise=0.01"]
    config = load_config("smoke", overrides=words).train.augment
    assert config.noise == 0.01
    assert config.elastic == AUGMENT_PRESETS["aggressive"]["elastic"]
    for mode in modes():
        assert load_config(mode).train.augment.preset in AUGMENT_PRESETS


@pytest.mark.parametrize("word", ["preset=wild", "preset=[1]", "elastic=0.2", "flip=-1", "zoom=1", "noise=nan"])
def test_wrong_augmentation_is_refused_by_name(word: str) -> None:
    with pytest.raises(ConfigError, match=rf"augment\.{word.partition('=')[0]}"):
        load_config("smoke", overrides=[f"train.augment.{word}".replace("nan", ".nan")])
