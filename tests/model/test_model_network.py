"""The network and its losses."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from slicewise.config import ModelConfig
from slicewise.model.losses import classification_loss, segmentation_loss
from slicewise.model.network import MultiTaskUNet, count_parameters


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
