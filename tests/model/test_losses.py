"""Every loss against formulas written out here, MONAI and scikit-learn; what is unknown counts nowhere."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.losses import DiceFocalLoss, DiceLoss, FocalLoss, TverskyLoss
from sklearn.metrics import log_loss
from small_run import MODEL, SmallData
from torch.nn import functional

from slicewise.config import LossConfig, load_config, validate
from slicewise.config.loss import SegmentationLoss
from slicewise.errors import ConfigError
from slicewise.model.losses import Losses, classification_loss, positive_weight, segmentation_loss
from slicewise.model.network import MultiTaskUNet
from slicewise.slices.batches import SliceData
from slicewise.training.stage import WEIGHTS, load_weights, train_stage
from slicewise.training.validate import validate_stage

KINDS = get_args(SegmentationLoss)
WEIGHTED = {"region_weights": (0.5, 2.0, 1.0)}
SETTINGS: list[dict[str, Any]] = [
    *({"segmentation": kind} for kind in KINDS),
    *({"segmentation": kind, **WEIGHTED} for kind in KINDS),
    {"segmentation": "focal", "focal_gamma": 0.0},
    {"segmentation": "focal", "focal_gamma": 0.5, "focal_alpha": 0.25},
    {"segmentation": "dice_focal", "focal_gamma": 3.0, "focal_alpha": 0.9, **WEIGHTED},
    {"segmentation": "tversky", "tversky_alpha": 0.9, "tversky_beta": 0.1},
]
CLASS_SETTINGS: list[tuple[dict[str, Any], float]] = [
    ({"classification": kind, "label_smoothing": smoothing, "focal_gamma": 1.5}, weight)
    for kind in ("bce", "focal")
    for smoothing in (0.0, 0.2)
    for weight in (1.0, 3.0)
]


def sample(seed: int, n: int = 3, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, ...]:
    """Logits, regions, a partly known mask and a wholly known one."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, 3, 5, 4, generator=generator, dtype=torch.float64)
    regions = torch.rand(n, 3, 5, 4, generator=generator) < 0.3
    known = torch.rand(n, 3, generator=generator) < 0.6
    known[0] = torch.tensor([True, False, True])
    return logits.to(dtype), regions.to(dtype), known.to(dtype), torch.ones(n, 3, dtype=dtype)


# The formulas, pixel by pixel in plain numpy: only known maps are ever looked at.


def pixel(p: float, t: float, config: LossConfig, kind: str) -> float:
    right = p if t else 1 - p
    if kind == "bce":
        return -math.log(right)
    alpha = 1.0 if config.focal_alpha is None else (config.focal_alpha if t else 1 - config.focal_alpha)
    return -alpha * (1 - right) ** config.focal_gamma * math.log(right)


def pixel_loss(p: np.ndarray, t: np.ndarray, known: np.ndarray, config: LossConfig, kind: str) -> float:
    total, weights = 0.0, 0.0
    for n, r in np.argwhere(known > 0):
        values = [pixel(a, b, config, kind) for a, b in zip(p[n, r].flat, t[n, r].flat, strict=True)]
        total += config.region_weights[r] * float(np.mean(values))
        weights += config.region_weights[r]
    return total / weights


def overlap_loss(p: np.ndarray, t: np.ndarray, known: np.ndarray, config: LossConfig, kind: str) -> float:
    total, weights = 0.0, 0.0
    for r in np.flatnonzero(known.any(axis=0)):
        q, u = p[known[:, r] > 0, r], t[known[:, r] > 0, r]
        hit, false, missed = (q * u).sum(), (q * (1 - u)).sum(), ((1 - q) * u).sum()
        if kind == "dice":
            ratio = (2 * hit + 1) / (2 * hit + false + missed + 1)
        else:
            ratio = (hit + 0.5) / (hit + config.tversky_alpha * false + config.tversky_beta * missed + 0.5)
        total += config.region_weights[r] * (1 - ratio)
        weights += config.region_weights[r]
    return float(total / weights)


def reference(logits: torch.Tensor, regions: torch.Tensor, known: torch.Tensor, config: LossConfig) -> float:
    p, t, k = 1 / (1 + np.exp(-logits.numpy())), regions.numpy(), known.numpy()
    loss = 0.0
    for kind in config.segmentation.split("_"):
        loss += (overlap_loss if kind in ("dice", "tversky") else pixel_loss)(p, t, k, config, kind)
    return loss


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_segmentation_equals_the_formula(settings: dict[str, Any], seed: int) -> None:
    config = LossConfig(**settings)
    logits, regions, known, everything = sample(seed)
    for mask in (known, everything):
        found = float(segmentation_loss(logits, regions, mask, config))
        assert found == pytest.approx(reference(logits, regions, mask, config), rel=1e-9)


OF_MONAI = [
    ({"segmentation": "dice"}, DiceLoss(sigmoid=True, batch=True, smooth_nr=1, smooth_dr=1)),
    ({"segmentation": "focal", "focal_gamma": 1.5, "focal_alpha": 0.3}, FocalLoss(gamma=1.5, alpha=0.3)),
    (
        {"segmentation": "tversky"},
        TverskyLoss(sigmoid=True, alpha=0.3, beta=0.7, batch=True, smooth_nr=0.5, smooth_dr=0.5),
    ),
    ({"segmentation": "dice_focal"}, DiceFocalLoss(sigmoid=True, batch=True, smooth_nr=1, smooth_dr=1)),
]


@pytest.mark.parametrize(("settings", "theirs"), OF_MONAI)
def test_where_all_is_known_the_losses_are_monais(settings: dict[str, Any], theirs: torch.nn.Module) -> None:
    logits, regions, _, everything = sample(4, dtype=torch.float32)
    found = segmentation_loss(logits, regions, everything, LossConfig(**settings))
    assert float(found) == pytest.approx(float(theirs(logits, regions)), rel=1e-5)


HALF = 0.5 * math.log(2)  # a pixel of logit 0 under cross-entropy, over 2
BY_HAND = [
    # settings, logits, truth, loss by hand; ±40 is a certainty
    ({"segmentation": "bce"}, [0.0, 0.0], [0, 1], 2 * HALF),
    ({"segmentation": "focal"}, [0.0, 0.0], [0, 1], HALF / 2),
    ({"segmentation": "focal", "focal_gamma": 1.0, "focal_alpha": 0.75}, [0.0, 0.0], [1, 1], 0.75 * HALF),
    ({"segmentation": "focal", "focal_gamma": 1.0, "focal_alpha": 0.75}, [0.0, 0.0], [0, 0], 0.25 * HALF),
    ({"segmentation": "focal"}, [-40.0, 40.0], [1, 1], 20.0),
    ({"segmentation": "dice"}, [40.0, 40.0], [1, 1], 0.0),
    ({"segmentation": "dice"}, [-40.0, -40.0], [0, 0], 0.0),
    ({"segmentation": "dice"}, [-40.0, -40.0], [1, 1], 1 - 1 / 3),
    ({"segmentation": "tversky"}, [40.0, 40.0], [0, 0], 1 - 0.5 / (0.3 * 2 + 0.5)),
    ({"segmentation": "tversky"}, [-40.0, -40.0], [1, 1], 1 - 0.5 / (0.7 * 2 + 0.5)),
    ({"segmentation": "tversky"}, [40.0, -40.0], [1, 1], 1 - 1.5 / (1 + 0.7 + 0.5)),
    ({"segmentation": "dice_focal"}, [0.0, 0.0], [0, 1], 1 - 2 / 3 + HALF / 2),
]


@pytest.mark.parametrize(("settings", "logits", "truth", "loss"), BY_HAND)
def test_segmentation_by_hand(settings: dict[str, Any], logits: list[float], truth: list[int], loss: float) -> None:
    """Two pixels, an empty, a full or a half-full mask."""
    maps = torch.tensor(logits).view(1, 1, 1, 2), torch.tensor(truth).float().view(1, 1, 1, 2)
    found = segmentation_loss(*maps, torch.ones(1, 1), LossConfig(**settings))
    assert float(found) == pytest.approx(loss, abs=1e-6)


def test_losses_that_are_one_another() -> None:
    logits, regions, known, _ = sample(5)

    def loss(**settings: Any) -> float:
        return float(segmentation_loss(logits, regions, known, LossConfig(**settings)))

    even = loss(segmentation="tversky", tversky_alpha=0.5, tversky_beta=0.5)
    assert even == pytest.approx(loss(segmentation="dice"), rel=1e-12)
    assert loss(segmentation="focal", focal_gamma=0) == pytest.approx(loss(segmentation="bce"), rel=1e-12)
    halved = loss(segmentation="focal", focal_gamma=0, focal_alpha=0.5)
    assert halved == pytest.approx(loss(segmentation="bce") / 2, rel=1e-12)
    assert loss() == pytest.approx(loss(segmentation="dice") + loss(segmentation="bce"), rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_ratios_of_region_weights_count(kind: str) -> None:
    logits, regions, known, everything = sample(6)

    def loss(mask: torch.Tensor, *weights: float) -> float:
        config = LossConfig(segmentation=kind, region_weights=weights)
        return float(segmentation_loss(logits, regions, mask, config))

    assert loss(known, 0.01, 0.02, 0.03) == pytest.approx(loss(known, 1, 2, 3), rel=1e-12)
    assert loss(known, 7, 7, 7) == pytest.approx(loss(known, 1, 1, 1), rel=1e-12)
    only_wt = everything * torch.tensor([1.0, 0.0, 0.0])
    assert loss(everything, 1, 0, 0) == pytest.approx(loss(only_wt, 1, 1, 1), rel=1e-12)


# The defaults are what SliceWise has always trained with, to the last bit.


def former_segmentation_loss(logits: torch.Tensor, regions: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    dice_loss = DiceLoss(sigmoid=False, batch=True, smooth_nr=1.0, smooth_dr=1.0, reduction="none")
    weight = known[:, :, None, None]
    per_region = known.amax(dim=0)
    dice = dice_loss(torch.sigmoid(logits) * weight, regions * weight).flatten()
    dice = (dice * per_region).sum() / per_region.sum().clamp_min(1.0)
    entropy = functional.binary_cross_entropy_with_logits(logits, regions, reduction="none").mean(dim=(2, 3))
    return dice + (entropy * known).sum() / known.sum().clamp_min(1.0)


def former_classification_loss(logits: torch.Tensor, tumour: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    entropy = functional.binary_cross_entropy_with_logits(logits, tumour, reduction="none")
    return (entropy * known).sum() / known.sum().clamp_min(1.0)


def loss_and_gradient(loss: Any, logits: torch.Tensor, *rest: Any) -> tuple[torch.Tensor, torch.Tensor]:
    leaf = logits.detach().clone().requires_grad_()
    value = loss(leaf, *rest)
    (gradient,) = torch.autograd.grad(value, leaf)
    return value.detach(), gradient


@pytest.mark.parametrize("seed", range(20))
def test_the_defaults_are_the_former_losses_bit_for_bit(seed: int) -> None:
    logits, regions, known, everything = sample(seed, n=8, dtype=torch.float32)
    losses = Losses.build(LossConfig(), [True, False, False])
    for mask in (known, everything, torch.zeros_like(known)):
        pairs = (
            (losses.segmentation, former_segmentation_loss, (logits, regions, mask)),
            (
                losses.classification,
                former_classification_loss,
                (logits[:, 0, 0, 0], regions[:, 0, 0, 0], mask[:, 0]),
            ),
        )
        for new, former, given_ in pairs:
            for found, expected in zip(
                loss_and_gradient(new, *given_), loss_and_gradient(former, *given_), strict=True
            ):
                assert torch.equal(found, expected)


# What is unknown.


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_nothing_known_gives_zero_and_no_gradient(settings: dict[str, Any]) -> None:
    logits, regions, _, everything = sample(7)
    value, gradient = loss_and_gradient(
        segmentation_loss, logits, regions, torch.zeros_like(everything), LossConfig(**settings)
    )
    assert float(value) == 0
    assert not gradient.any()


@settings(max_examples=60, deadline=None)
@given(
    setting=st.sampled_from(SETTINGS),
    seed=st.integers(0, 2**16),
    noise=st.floats(-1e4, 1e4),
    truth=st.sampled_from([0.0, 1.0]),
)
def test_unknown_regions_never_matter(setting: dict[str, Any], seed: int, noise: float, truth: float) -> None:
    config = LossConfig(**setting)
    logits, regions, known, _ = sample(seed)
    unknown = known[:, :, None, None].expand_as(logits) == 0
    before, gradient = loss_and_gradient(segmentation_loss, logits, regions, known, config)
    changed = torch.where(unknown, noise, logits), torch.where(unknown, truth, regions)
    after, changed_gradient = loss_and_gradient(segmentation_loss, *changed, known, config)
    assert torch.equal(before, after)
    assert torch.equal(gradient, changed_gradient)
    assert not gradient[unknown].any()
    counted = known * torch.tensor(config.region_weights) > 0
    assert bool((gradient.abs().sum(dim=(2, 3))[counted] > 0).all())


@settings(max_examples=40, deadline=None)
@given(
    setting=st.sampled_from(CLASS_SETTINGS),
    known=st.lists(st.booleans(), min_size=1, max_size=8),
    noise=st.floats(-1e4, 1e4),
)
def test_unknown_classes_never_matter(setting: tuple[dict[str, Any], float], known: list[bool], noise: float) -> None:
    config, weight = LossConfig(**setting[0]), setting[1]
    mask = torch.tensor(known)
    generator = torch.Generator().manual_seed(len(known))
    logits, tumour = torch.randn(2, len(known), generator=generator, dtype=torch.float64)
    tumour = (tumour > 0).double()
    before, gradient = loss_and_gradient(classification_loss, logits, tumour, mask.double(), config, weight)
    changed = torch.where(mask, logits, noise), torch.where(mask, tumour, 1 - tumour)
    after, changed_gradient = loss_and_gradient(classification_loss, *changed, mask.double(), config, weight)
    assert torch.equal(before, after)
    assert torch.equal(gradient, changed_gradient)
    assert not gradient[~mask].any()
    if any(known):
        alone = classification_loss(logits[mask], tumour[mask], torch.ones(sum(known)).double(), config, weight)
        assert float(before) == pytest.approx(float(alone), rel=1e-12)
    else:
        assert float(before) == 0


# Gradients.


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_segmentation_gradients_are_the_losses_own(settings: dict[str, Any]) -> None:
    logits, regions, known, _ = sample(8, n=2)
    config = LossConfig(**settings)
    leaf = logits[:, :, :2, :2].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: segmentation_loss(x, regions[:, :, :2, :2], known, config), leaf)


@pytest.mark.parametrize("truth", [0.0, 1.0])
@pytest.mark.parametrize("size", [-1e4, 1e4])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_extreme_logits_keep_loss_and_gradient_finite(settings: dict[str, Any], size: float, truth: float) -> None:
    logits, regions = torch.full((2, 3, 4, 4), size), torch.full((2, 3, 4, 4), truth)
    value, gradient = loss_and_gradient(segmentation_loss, logits, regions, torch.ones(2, 3), LossConfig(**settings))
    assert math.isfinite(float(value))
    assert bool(gradient.isfinite().all())
    right = (size > 0) == (truth == 1)
    assert float(value) == pytest.approx(0, abs=1e-6) if right else float(value) > 0.1


# The tumour class.


@pytest.mark.parametrize(("setting", "weight"), CLASS_SETTINGS, ids=str)
def test_classification_equals_the_formula(setting: dict[str, Any], weight: float) -> None:
    config = LossConfig(**setting)
    logits, classes = [2.0, -1.0, 0.3, -3.0, 7.0], [1.0, 1.0, 0.0, 0.0, 0.0]
    values = []
    for logit, truth in zip(logits[:4], classes[:4], strict=True):
        p = 1 / (1 + math.exp(-logit))
        soft = truth * (1 - config.label_smoothing) + config.label_smoothing / 2
        gamma = config.focal_gamma if config.classification == "focal" else 0.0
        values.append(-weight * soft * (1 - p) ** gamma * math.log(p) - (1 - soft) * p**gamma * math.log(1 - p))
    given_ = torch.tensor([logits, classes, [1.0, 1.0, 1.0, 1.0, 0.0]], dtype=torch.float64).unbind()
    found = classification_loss(*given_, config, weight)
    assert float(found) == pytest.approx(sum(values) / 4, rel=1e-9)
    leaf = given_[0].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: classification_loss(x, *given_[1:], config, weight), leaf)


@pytest.mark.parametrize("seed", range(3))
def test_cross_entropy_is_scikit_learns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits, classes = rng.normal(size=40), rng.integers(0, 2, size=40)
    found = classification_loss(
        torch.tensor(logits), torch.tensor(classes).double(), torch.ones(40).double(), LossConfig()
    )
    assert float(found) == pytest.approx(log_loss(classes, 1 / (1 + np.exp(-logits))), rel=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_balanced_cross_entropy_is_scikit_learns_with_balanced_weights(seed: int) -> None:
    """Up to the factor between a mean over slices and a mean over weights."""
    rng = np.random.default_rng(seed)
    logits, classes = rng.normal(size=60), (np.arange(60) < 9).astype(int)
    losses = Losses.build(LossConfig(pos_weight="balanced"), [bool(value) for value in classes])
    assert losses.pos_weight == pytest.approx(51 / 9)
    found = losses.classification(torch.tensor(logits), torch.tensor(classes).double(), torch.ones(60).double())
    weights = np.where(classes == 1, 51 / 9, 1.0)
    expected = log_loss(classes, 1 / (1 + np.exp(-logits)), sample_weight=weights) * weights.mean()
    assert float(found) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("setting", "weight"), CLASS_SETTINGS, ids=str)
@pytest.mark.parametrize("size", [-1e4, 1e4])
@pytest.mark.parametrize("truth", [0.0, 1.0])
def test_extreme_class_logits(setting: dict[str, Any], weight: float, size: float, truth: float) -> None:
    logits, tumour = torch.full((3,), size), torch.full((3,), truth)
    value, gradient = loss_and_gradient(
        classification_loss, logits, tumour, torch.ones(3), LossConfig(**setting), weight
    )
    assert math.isfinite(float(value))
    assert bool(gradient.isfinite().all())


POSITIVE_WEIGHTS = [
    (2.5, [True, False], 2.5),
    ("balanced", [True, False, False, False], 3.0),
    ("balanced", [True, True, False, None, None], 0.5),
    ("balanced", [True, True], 1.0),
    ("balanced", [False, None], 1.0),
    ("balanced", [], 1.0),
]


@pytest.mark.parametrize(("setting", "classes", "weight"), POSITIVE_WEIGHTS)
def test_positive_weight(setting: Any, classes: list[bool | None], weight: float) -> None:
    assert positive_weight(setting, classes) == weight


# The configuration.


WRONG = [
    ("segmentation=lovasz", "segmentation"),
    ("region_weights=[1,1]", "region_weights.2"),
    ("region_weights=[0,0,0]", "region_weights"),
    ("region_weights=[1,-1,1]", "region_weights.1"),
    ("focal_gamma=-1", "focal_gamma"),
    ("focal_gamma=.inf", "focal_gamma"),
    ("focal_alpha=1.5", "focal_alpha"),
    ("tversky_alpha=0", "tversky_alpha"),
    ("tversky_beta=.nan", "tversky_beta"),
    ("classification=hinge", "classification"),
    ("label_smoothing=1", "label_smoothing"),
    ("pos_weight=0", "pos_weight"),
    ("pos_weight=.inf", "pos_weight"),
    ("pos_weight=true", "pos_weight"),
    ("pos_weight=even", "pos_weight"),
]


@pytest.mark.parametrize(("word", "key"), WRONG)
def test_a_wrong_value_is_named(word: str, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("smoke", overrides=[f"train.loss.{word}"])
    assert caught.value.message.startswith(f"train.loss.{key}: ")


def test_a_wrong_key_is_named() -> None:
    with pytest.raises(ConfigError, match=r"train\.loss\.focal_gama.*did you mean 'focal_gamma'"):
        load_config("smoke", overrides=["train.loss.focal_gama=1"])


def test_the_section_reads_back_the_same() -> None:
    words = ["segmentation=tversky", "region_weights=[1,2,3]", "pos_weight=balanced", "focal_alpha=0.25"]
    config = load_config("smoke", overrides=[f"train.loss.{word}" for word in words])
    assert config.train.loss == LossConfig(
        segmentation="tversky", region_weights=(1, 2, 3), pos_weight="balanced", focal_alpha=0.25
    )
    assert validate(LossConfig, config.section("train")["loss"]) == config.train.loss


def test_a_stage_trains_and_validates_with_the_configured_losses(small: SmallData, tmp_path: Path) -> None:
    chosen = LossConfig(segmentation="focal", classification="focal", pos_weight="balanced")
    job = small.job("joint", tmp_path / "checkpoints", loss=chosen)
    history = train_stage(job, tmp_path / "out")["history"]
    network = MultiTaskUNet(4, MODEL)
    network.load_state_dict(load_weights(tmp_path / "out" / WEIGHTS))
    train, val = (SliceData(small.store, side, selected_only=True) for side in (small.split.train, small.split.val))
    losses = Losses.build(chosen, train.tumour())
    assert losses.pos_weight != 1

    def val_loss(loss_of: Losses) -> float:
        found = validate_stage(network, val, job.train, ("segment", "classify"), loss_of)
        return float(found["val_loss"] or 0)

    assert history[0]["val_loss"] == pytest.approx(val_loss(losses), rel=1e-5)
    assert history[0]["val_loss"] != pytest.approx(val_loss(Losses(chosen)), rel=1e-2)
    # An unsure network's focal loss is a quarter of its cross-entropy, to which the default adds Dice.
    assert history[0]["train_loss"] < val_loss(Losses()) / 2
