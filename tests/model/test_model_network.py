"""The network and its losses."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from slicewise.config import AugmentConfig, ModelConfig
from slicewise.model.losses import classification_loss, segmentation_loss
from slicewise.model.network import MultiTaskUNet, count_parameters
from slicewise.slices.augment import augment, drop_modalities
from slicewise.slices.batches import Batch


def test_large_preset_has_the_stated_size() -> None:
    assert count_parameters(MultiTaskUNet(4, ModelConfig(preset="large"))) == pytest.approx(31.7e6, rel=0.003)


def test_outputs_have_the_contracts_shapes_and_ignore_batch_mates() -> None:
    """Dynamic batching must not change an answer: no batch statistics anywhere."""
    torch.manual_seed(0)
    network = MultiTaskUNet(4, ModelConfig()).eval()
    batch = torch.randn(3, 4, 48, 64)
    with torch.inference_mode():
        together, alone = network(batch), network(batch[1:2])
    assert together.regions.shape == (3, 3, 48, 64)
    assert together.tumour.shape == (3,)
    torch.testing.assert_close(together.regions[1:2], alone.regions, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(together.tumour[1:2], alone.tumour, atol=1e-4, rtol=1e-4)


def test_decoder_is_left_out_on_request() -> None:
    network = MultiTaskUNet(4, ModelConfig()).eval()
    calls: list[int] = []
    network.decoder.register_forward_hook(lambda *_: calls.append(1))
    assert network(torch.randn(1, 4, 32, 32), segment=False).regions is None
    assert not calls


def reference_loss(logits: np.ndarray, truth: np.ndarray) -> float:
    """Batch Dice (smoothed by 1) plus cross-entropy, written out in numpy."""
    p = 1 / (1 + np.exp(-logits))
    axes = (0, 2, 3)
    dice = 1 - (2 * (p * truth).sum(axes) + 1) / (p.sum(axes) + truth.sum(axes) + 1)
    entropy = -(truth * np.log(p) + (1 - truth) * np.log(1 - p))
    return float(dice.mean() + entropy.mean())


@pytest.mark.parametrize("seed", range(5))
def test_segmentation_loss_equals_an_independent_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits, truth = rng.normal(size=(2, 3, 8, 8)), (rng.random((2, 3, 8, 8)) < 0.3).astype(float)
    found = segmentation_loss(torch.tensor(logits), torch.tensor(truth), torch.ones(2, 3, dtype=torch.float64))
    assert float(found) == pytest.approx(reference_loss(logits, truth), rel=1e-6)


def test_unknown_regions_give_neither_loss_nor_gradient() -> None:
    logits = torch.randn(2, 3, 8, 8, requires_grad=True)
    known = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    loss = segmentation_loss(logits, torch.ones(2, 3, 8, 8) * known[:, :, None, None], known)
    loss.backward()
    assert logits.grad is not None
    assert logits.grad[:, 0].abs().sum() > 0
    assert logits.grad[:, 1:].abs().sum() == 0
    assert float(segmentation_loss(logits, torch.zeros(2, 3, 8, 8), torch.zeros(2, 3))) == 0
    assert float(classification_loss(torch.randn(4), torch.zeros(4), torch.zeros(4))) == 0


def test_dropping_modalities_leaves_each_slice_one_that_it_has() -> None:
    image = torch.randn(200, 4, 4, 4)
    image[:100, 1:] = 0
    dropped = drop_modalities(image, 0.9, torch.Generator().manual_seed(0))
    present = (dropped != 0).flatten(2).any(dim=2)
    assert present.any(dim=1).all()
    assert torch.equal(dropped[:100], image[:100])
    assert present[100:].sum() < 200


def test_image_and_regions_move_together_and_the_background_stays_zero() -> None:
    """A bright square is its own region: after any augmentation they still coincide."""
    image, regions = torch.zeros(16, 1, 48, 48), torch.zeros(16, 3, 48, 48)
    image[:, 0, 10:20, 14:30] = 3.0
    regions[:, 0, 10:20, 14:30] = 1.0
    ones = torch.ones(16)
    batch = Batch(image, regions, torch.ones(16, 3), ones, ones, np.arange(16))
    config = AugmentConfig(modality_dropout=0, noise=0.0, intensity=0.05)
    moved = augment(batch, config, torch.Generator().manual_seed(1))
    bright, labelled = moved.image[:, 0] > 1.5, moved.regions[:, 0] > 0
    overlap = (bright & labelled).sum((1, 2)) / (bright | labelled).sum((1, 2))
    assert overlap.min() > 0.85
    assert (moved.image[:, 0, :2, :2] == 0).all()
    again = augment(batch, config, torch.Generator().manual_seed(1))
    assert torch.equal(moved.image, again.image)
