"""Every architecture behind the one interface, and the U-Net unchanged."""

from __future__ import annotations

import itertools
import typing

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from slicewise.config import Architecture, ModelConfig
from slicewise.errors import InputError
from slicewise.inference.calibration import Calibration
from slicewise.inference.explain import grad_cam
from slicewise.inference.sampling import Member, SamplingPlan, draw_samples
from slicewise.model.network import MultiTaskUNet, build_network, count_parameters

ARCHITECTURES = typing.get_args(Architecture)
every = pytest.mark.parametrize("architecture", ARCHITECTURES)


def network_of(architecture: str, channels: int = 4, seed: int = 0, **model: object) -> MultiTaskUNet:
    torch.manual_seed(seed)
    return build_network(channels, ModelConfig.model_validate({"architecture": architecture, **model}))


def image(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_default_is_the_plain_unet_drawn_in_its_old_order() -> None:
    """Weights of a seed stay what they were: encoder, up-convolutions, decoder blocks, output, head."""
    torch.manual_seed(5)
    widths = [16 * 2**level for level in range(5)]

    def block(before: int, after: int) -> list[nn.Module]:
        return [
            nn.Conv2d(before, after, 3, bias=False),
            nn.InstanceNorm2d(after, affine=True),
            nn.Conv2d(after, after, 3, bias=False),
            nn.InstanceNorm2d(after, affine=True),
        ]

    falling = list(itertools.pairwise(widths[::-1]))
    layers = [layer for a, b in zip([4, *widths], widths, strict=False) for layer in block(a, b)]
    layers += [nn.ConvTranspose2d(a, b, 2) for a, b in falling]
    layers += [layer for a, b in falling for layer in block(a, b)]
    layers += [nn.Conv2d(16, 3, 1), nn.Linear(512, 80), nn.Linear(80, 1)]
    expected = [tensor for layer in layers for tensor in layer.state_dict().values()]
    found = network_of("unet", seed=5).state_dict()
    assert all(torch.equal(a, b) for a, b in zip(expected, found.values(), strict=True))
    assert ModelConfig().architecture == "unet"


def test_the_unets_tensors_keep_their_names() -> None:
    names = list(MultiTaskUNet(4, ModelConfig()).state_dict())
    assert len(names) == 68
    blocks = [f"encoder.blocks.{n}" for n in range(5)] + [f"decoder.blocks.{n}" for n in range(4)]
    expected = [f"{block}.layers.{n}" for block in blocks for n in ("0.weight", "1.weight", "1.bias", "3.weight")]
    expected += [f"decoder.ups.{n}.{kind}" for n in range(4) for kind in ("weight", "bias")]
    expected += ["decoder.out.weight", "decoder.out.bias", "head.layers.0.weight", "head.layers.3.bias"]
    assert set(expected) <= set(names)


# Of four input channels, in weights; the U-Net's are checked layer by layer in test_model_details.py.
SIZES = [
    ("unet", "small", 1_983_876),
    ("unet", "medium", 7_927_556),
    ("unet", "large", 31_694_340),
    ("efficientnet", "small", 4_329_416),
    ("efficientnet", "medium", 8_652_690),
    ("efficientnet", "large", 19_267_796),
    ("efficientnet_lite", "small", 3_692_876),
    ("mednext", "small", 1_458_900),
    ("mednext", "medium", 5_702_052),
    ("mednext", "large", 22_541_124),
]


@pytest.mark.parametrize(("architecture", "preset", "parameters"), SIZES)
def test_parameter_counts(architecture: str, preset: str, parameters: int) -> None:
    with torch.device("meta"):
        network = network_of(architecture, preset=preset)
    assert count_parameters(network) == parameters


def test_the_efficientnet_is_the_papers_b0() -> None:
    """Without its classifier (1280 filters): 4 007 548 weights with three input channels."""
    with torch.device("meta"):
        encoder = network_of("efficientnet", channels=3).encoder
    assert count_parameters(encoder) - count_parameters(encoder.full) == 4_007_548 - 320 * 1280 - 2 * 1280


def test_the_efficientnet_lite_is_the_published_lite0() -> None:
    """4 652 008 weights with three input channels; left out is the classifier (1280 filters, 1000 classes)."""
    with torch.device("meta"):
        encoder = network_of("efficientnet_lite", channels=3).encoder
    classifier = 320 * 1280 + 2 * 1280 + 1281 * 1000
    assert count_parameters(encoder) - count_parameters(encoder.full) == 4_652_008 - classifier


def test_mednext_counted_by_hand() -> None:
    """Depth-wise 5×5 without bias, a norm, expansion to twice the width and back, on every level."""

    def block(before: int, after: int) -> int:
        return 25 * before + 2 * before + (before + 1) * 2 * before + (2 * before + 1) * after

    widths = [16 * 2**level for level in range(5)]
    levels = sum(2 * block(width, width) for width in widths)
    downs = sum(block(a, b) + (a + 1) * b for a, b in itertools.pairwise(widths))
    with torch.device("meta"):
        assert count_parameters(network_of("mednext").encoder) == 5 * 16 + levels + downs


@every
@pytest.mark.parametrize("size", [(32, 32), (48, 80), (96, 32)])
@pytest.mark.parametrize("channels", [1, 4])
def test_shapes(architecture: str, size: tuple[int, int], channels: int) -> None:
    network = network_of(architecture, channels).eval()
    with torch.inference_mode():
        features = network.encoder(image(2, channels, *size))
        logits = network.from_features(features)
    height, width = size
    assert [level.shape[2:] for level in features] == [(height >> n, width >> n) for n in range(5)]
    assert tuple(level.shape[1] for level in features) == network.encoder.widths
    assert logits.regions is not None
    assert logits.regions.shape == (2, 3, *size)
    assert logits.tumour.shape == (2,)
    assert logits.coarse is None


@every
@pytest.mark.parametrize("shape", [(1, 4, 16, 16), (1, 4, 32, 40), (1, 4, 16, 64), (1, 3, 32, 32), (4, 32, 32)])
def test_what_does_not_fit_is_refused_by_name(architecture: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"image: .*(multiples of 16|one channel per modality)"):
        network_of(architecture)(torch.zeros(shape))


@every
def test_a_slice_alone_answers_as_in_a_batch(architecture: str) -> None:
    """Also in training mode: there is no statistic of the batch, and no running one that a batch changes."""
    network = network_of(architecture, dropout=0.0)
    batch = image(3, 4, 48, 32)
    batch[0] *= 100.0
    buffers = [buffer.clone() for buffer in network.buffers()]
    for mode in (True, False):
        network.train(mode)
        with torch.no_grad():
            together, alone = network(batch), network(batch[1:2])
        torch.testing.assert_close(together.regions[1:2], alone.regions, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(together.tumour[1:2], alone.tumour, atol=1e-4, rtol=1e-4)
    assert all(torch.equal(a, b) for a, b in zip(buffers, network.buffers(), strict=True))


@every
def test_dropout_varies_both_outputs_from_one_encoder_pass(architecture: str) -> None:
    network = network_of(architecture, dropout=0.3)
    assert not [m for m in network.encoder.modules() if isinstance(m, nn.Dropout | nn.Dropout2d)]
    with torch.no_grad():
        # The encoder draws nothing, even in training: its features are the same each time.
        first, features = (network.train().encoder(image(1, 4, 32, 32)) for _ in range(2))
        samples = [network.from_features(features) for _ in range(8)]
    assert all(torch.equal(a, b) for a, b in zip(first, features, strict=True))
    assert torch.stack([sample.tumour for sample in samples]).var(dim=0).min() > 0
    assert torch.stack([sample.regions for sample in samples]).var(dim=0).min() > 0


@every
def test_explanation_and_uncertainty_work_on_the_features(architecture: str) -> None:
    network = network_of(architecture, dropout=0.3).eval()
    with torch.inference_mode():
        features = network.encoder(image(2, 4, 48, 64))
    samples = draw_samples([Member(network, Calibration())], image(2, 4, 48, 64), SamplingPlan(4), features)
    entropy = samples.regions.predictive_entropy[:, 0]
    samples.require_variance()
    cam = grad_cam(network, features[-1])
    assert cam.shape == entropy.shape == (2, 48, 64)
    assert cam.min() >= 0
    assert cam.max() == pytest.approx(1.0)
    assert entropy.std() > 0
    assert np.isfinite(entropy).all()


@every
@pytest.mark.parametrize("deep", [False, True])
def test_the_gradient_reaches_every_weight(architecture: str, deep: bool) -> None:
    network = network_of(architecture, dropout=0.0, deep_supervision=deep).train()
    logits = network(image(2, 4, 32, 48))
    maps = [logits.regions, *(logits.coarse or ())]
    (logits.tumour.square().sum() + sum(level.square().sum() for level in maps)).backward()
    for name, weight in network.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.abs().sum() > 0, name


@every
def test_the_same_seed_gives_the_same_step(architecture: str) -> None:
    def step() -> list[torch.Tensor]:
        network = network_of(architecture, seed=7).train()
        logits = network(image(2, 4, 32, 32))
        (logits.regions.square().mean() + logits.tumour.square().mean()).backward()
        return [weight.grad for weight in network.parameters()]

    assert all(torch.equal(a, b) for a, b in zip(step(), step(), strict=True))


@every
def test_the_decoder_is_left_out_on_request(architecture: str) -> None:
    network = network_of(architecture, deep_supervision=True)
    calls: list[int] = []
    network.decoder.out.register_forward_hook(lambda *_: calls.append(1))
    assert network(image(1, 4, 32, 32), segment=False).regions is None
    assert not calls


@every
def test_deep_supervision_adds_coarser_maps_in_training_only(architecture: str) -> None:
    plain, deep = (network_of(architecture, dropout=0.0, deep_supervision=on) for on in (False, True))
    added = set(deep.state_dict()) - set(plain.state_dict())
    assert added == {f"decoder.coarse.{n}.{kind}" for n in range(3) for kind in ("weight", "bias")}
    given = image(2, 4, 64, 32)
    assert plain.train()(given).coarse is None
    trained, judged = deep.train()(given), deep.eval()(given)
    assert [tuple(level.shape) for level in trained.coarse] == [(2, 3, 32, 16), (2, 3, 16, 8), (2, 3, 8, 4)]
    assert judged.coarse is None
    torch.testing.assert_close(judged.regions, trained.regions)
    deep.load_state_dict({**deep.state_dict(), **plain.state_dict()})
    torch.testing.assert_close(deep(given).regions, plain.eval()(given).regions)


def test_an_unknown_architecture_is_refused() -> None:
    with pytest.raises(ValidationError, match="architecture"):
        ModelConfig.model_validate({"architecture": "vgg"})
