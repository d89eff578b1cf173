"""Network and losses, part by part."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from slicewise.config import ModelConfig
from slicewise.model.losses import classification_loss, segmentation_loss
from slicewise.model.network import BASE_FILTERS, MultiTaskUNet, count_parameters


def expected_parameters(channels: int, base: int) -> int:
    """Counted by hand: blocks (two bias-free 3×3 convolutions and norms), up-convolutions, output, head."""

    def block(before: int, after: int) -> int:
        return 9 * before * after + 9 * after * after + 4 * after

    widths = [base * 2**level for level in range(5)]
    encoder = sum(block(a, b) for a, b in zip([channels, *widths], widths, strict=False))
    decoder = sum(4 * b * a + a + block(b, a) for a, b in itertools.pairwise(widths)) + 3 * base + 3
    hidden = max(16, widths[-1] * 5 // 16)
    return encoder + decoder + (2 * widths[-1] + 1) * hidden + hidden + 1


@pytest.mark.parametrize("preset", ["small", "medium", "large"])
@pytest.mark.parametrize("channels", [1, 4])
def test_parameter_counts(preset: str, channels: int) -> None:
    with torch.device("meta"):
        network = MultiTaskUNet(channels, ModelConfig(preset=preset))
    assert count_parameters(network) == expected_parameters(channels, BASE_FILTERS[preset])


def test_nothing_in_the_network_looks_at_the_batch() -> None:
    kinds = {type(module) for module in MultiTaskUNet(4, ModelConfig()).modules()}
    assert not any(issubclass(kind, nn.modules.batchnorm._BatchNorm) for kind in kinds)
    assert nn.InstanceNorm2d in kinds


def test_the_heads_loss_reaches_the_encoder_and_spares_the_decoder() -> None:
    network = MultiTaskUNet(4, ModelConfig())
    network(torch.randn(2, 4, 32, 32), segment=False).tumour.sum().backward()
    for part, reached in ((network.encoder, True), (network.head, True), (network.decoder, False)):
        for name, weight in part.named_parameters():
            assert (weight.grad is not None and bool(weight.grad.abs().sum() > 0)) is reached, name


def test_dropout_lies_behind_the_encoder_only() -> None:
    """MC samples share one encoder pass, and still differ."""
    torch.manual_seed(0)
    network = MultiTaskUNet(4, ModelConfig(dropout=0.3)).train()
    assert not [m for m in network.encoder.modules() if isinstance(m, nn.Dropout | nn.Dropout2d)]
    features = network.encoder(torch.randn(1, 4, 32, 32))
    one, two = network.from_features(features), network.from_features(features)
    assert not torch.equal(one.regions, two.regions)
    assert not torch.equal(one.tumour, two.tumour)


CASES = [
    # logits, truth, Dice by hand (smoothed by 1), cross-entropy by hand
    ([[0.0, 0.0], [0.0, 0.0]], [[0, 0], [0, 0]], 1 - 1 / 3, 0.6931472),
    ([[0.0, 0.0], [0.0, 0.0]], [[1, 1], [1, 1]], 1 - 5 / 7, 0.6931472),
    ([[40.0, -40.0], [-40.0, 40.0]], [[1, 0], [0, 1]], 0.0, 0.0),
    ([[40.0, -40.0], [-40.0, -40.0]], [[0, 0], [0, 0]], 1 - 1 / 2, 10.0),
    ([[-40.0, -40.0], [-40.0, -40.0]], [[0, 0], [0, 0]], 0.0, 0.0),
]


@pytest.mark.parametrize(("logits", "truth", "dice", "entropy"), CASES)
def test_segmentation_loss_by_hand(
    logits: list[list[float]], truth: list[list[int]], dice: float, entropy: float
) -> None:
    found = segmentation_loss(torch.tensor([[logits]]), torch.tensor([[truth]]).float(), torch.ones(1, 1))
    assert float(found) == pytest.approx(dice + entropy, abs=1e-5)


def test_what_is_unknown_changes_nothing() -> None:
    """A batch of a full and a one-region study: the unknown maps' logits and targets play no part."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 6, 6, generator=generator)
    truth = (torch.rand(2, 3, 6, 6, generator=generator) < 0.4).float()
    known = torch.tensor([[1.0, 1, 1], [1, 0, 0]])
    before = segmentation_loss(logits, truth, known)
    logits[1, 1:], truth[1, 1:] = 9.0, 1.0
    assert torch.equal(segmentation_loss(logits, truth, known), before)
    alone = segmentation_loss(logits[:1], truth[:1], known[:1])
    never = torch.tensor([[1.0, 1, 1], [0, 0, 0]])
    assert float(segmentation_loss(logits, truth, never)) == pytest.approx(float(alone), rel=1e-6)


def test_all_unknown_still_gives_a_gradient_of_zero() -> None:
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    segmentation_loss(logits, torch.zeros(2, 3, 4, 4), torch.zeros(2, 3)).backward()
    assert logits.grad is not None
    assert not logits.grad.any()


def test_classification_loss_averages_the_known() -> None:
    logits, truth = torch.tensor([2.0, -1.0, 7.0]), torch.tensor([1.0, 1.0, 0.0])
    expected = (nn.functional.softplus(torch.tensor(-2.0)) + nn.functional.softplus(torch.tensor(1.0))) / 2
    assert float(classification_loss(logits, truth, torch.tensor([1.0, 1, 0]))) == pytest.approx(float(expected))
