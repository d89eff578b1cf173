"""The explanations of the classification output, against Captum's and MONAI's."""

from __future__ import annotations

import typing
from collections.abc import Callable

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients, LayerActivation, LayerGradCam, LayerGradientXActivation, Occlusion
from monai.visualize import GradCAM
from torch import nn
from torch.nn.functional import interpolate, relu

from slicewise.config import Architecture, ModelConfig, SliceConfig
from slicewise.inference.bundle import BundleMeta, write_bundle
from slicewise.inference.explain import EXPLAIN_METHODS, HIRES_LEVEL, explain, grad_cam, trace_features
from slicewise.inference.integrated_gradients import integrated_gradients
from slicewise.inference.occlusion import occlusion_drops
from slicewise.inference.predictor import PredictOptions, Predictor, SliceInput
from slicewise.model.network import MultiTaskUNet, build_network

every_method = pytest.mark.parametrize("method", EXPLAIN_METHODS)


class Classifier(nn.Module):
    """Only the classification output, as the other libraries want it: ``[N, 1]``."""

    def __init__(self, network: MultiTaskUNet) -> None:
        super().__init__()
        self.network = network
        self.eval()  # MONAI puts a model back into the mode it says it is in

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x, segment=False).tumour[:, None]


def network_of(architecture: str = "unet", seed: int = 0) -> MultiTaskUNet:
    torch.manual_seed(seed)
    preset = "tiny" if architecture in ("unet", "mednext") else "small"
    config = ModelConfig.model_validate({"architecture": architecture, "preset": preset})
    return build_network(4, config).eval()


def heads(n: int = 2, side: int = 48, seed: int = 1) -> torch.Tensor:
    """Noise in an ellipse, 0 around it."""
    rows, columns = np.mgrid[:side, :side] / side - 0.5
    inside = torch.from_numpy((rows / 0.4) ** 2 + ((columns + 0.05) / 0.3) ** 2 < 1)
    return torch.randn(n, 4, side, side, generator=torch.Generator().manual_seed(seed)) * inside


def features_of(network: MultiTaskUNet, image: torch.Tensor) -> list[torch.Tensor]:
    with torch.inference_mode():
        return network.encoder(image)


def scaled(evidence: torch.Tensor, head: torch.Tensor) -> np.ndarray:
    """What every method ends in: what speaks for tumour, in the head, divided by its greatest value."""
    positive = (relu(evidence) * head).detach()
    return (positive / positive.amax(dim=(1, 2), keepdim=True)).numpy()


def enlarged(coarse: torch.Tensor, side: int) -> torch.Tensor:
    return interpolate(coarse, size=(side, side), mode="bilinear")[:, 0]


# Captum hooks a layer: the bottleneck is what the last block of the encoder gives.
def last_block(network: MultiTaskUNet) -> nn.Module:
    return network.encoder.blocks[-1]  # type: ignore[index]


def captum_gradcam(network: MultiTaskUNet, x: torch.Tensor) -> torch.Tensor:
    cam = LayerGradCam(Classifier(network), last_block(network)).attribute(x, target=0, relu_attributions=True)
    return enlarged(cam, x.shape[2])


def captum_hirescam(network: MultiTaskUNet, x: torch.Tensor) -> torch.Tensor:
    layer = network.encoder.blocks[HIRES_LEVEL]  # type: ignore[index]
    product = LayerGradientXActivation(Classifier(network), layer).attribute(x, target=0)
    return enlarged(relu(product.sum(dim=1, keepdim=True)), x.shape[2])


def captum_occlusion(network: MultiTaskUNet, x: torch.Tensor) -> torch.Tensor:
    window, stride = x.shape[2] // 8, x.shape[2] // 16
    drops = Occlusion(Classifier(network)).attribute(
        x, strides=(4, stride, stride), sliding_window_shapes=(4, window, window), baselines=0.0, target=0
    )
    return drops[:, 0]


def captum_integrated_gradients(network: MultiTaskUNet, x: torch.Tensor) -> torch.Tensor:
    bottleneck = LayerActivation(Classifier(network), last_block(network)).attribute(x).detach()
    found = IntegratedGradients(lambda features: network.head(features)).attribute(
        bottleneck, baselines=0.0, n_steps=16, method="riemann_middle"
    )
    return enlarged(relu(found.sum(dim=1, keepdim=True)), x.shape[2])


CAPTUM: dict[str, Callable[[MultiTaskUNet, torch.Tensor], torch.Tensor]] = {
    "gradcam": captum_gradcam,
    "hirescam": captum_hirescam,
    "integrated_gradients": captum_integrated_gradients,
    "occlusion": captum_occlusion,
}


@every_method
def test_the_map_is_captums(method: str) -> None:
    network, x = network_of(), heads()
    found = explain(network, x, features_of(network, x), method)  # type: ignore[arg-type]
    expected = scaled(CAPTUM[method](network, x), (x != 0).any(dim=1))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_grad_cam_is_monais() -> None:
    network, x = network_of(), heads(1)
    coarse = GradCAM(Classifier(network), target_layers="network.encoder.blocks.4").compute_map(x)
    head = (x != 0).any(dim=1)
    found = grad_cam(network, features_of(network, x)[-1], head)
    np.testing.assert_allclose(found, scaled(enlarged(coarse, x.shape[2]), head), atol=2e-4)


def test_occlusion_by_hand() -> None:
    """Hide one window oneself, and compare the corner that only this window covers."""
    network, x = network_of(), heads(1) + 1.0  # head everywhere: every window counts
    drops = occlusion_drops(network, x)
    hidden = x.clone()
    hidden[:, :, :6, :6] = 0
    with torch.inference_mode():
        expected = network(x, segment=False).tumour - network(hidden, segment=False).tumour
    torch.testing.assert_close(drops[0, :3, :3], expected.expand(3, 3))


def test_windows_outside_the_head_are_not_tried() -> None:
    network = network_of()
    x = torch.zeros(1, 4, 96, 96)
    x[:, :, 40:44, 40:44] = 1.0
    seen: list[int] = []
    hook = network.encoder.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    occlusion_drops(network, x)
    hook.remove()
    # Windows of 12 every 6 pixels touch rows 40..43 from 30, 36 and 42 on: 3 by 3, and the slice as it is.
    assert sum(seen) == 1 + 9


def test_integrated_gradients_add_up_to_the_logit() -> None:
    network, x = network_of(), heads()
    bottleneck = features_of(network, x)[-1]
    found = integrated_gradients(network, bottleneck, steps=256)
    with torch.inference_mode():
        difference = network.head(bottleneck) - network.head(torch.zeros_like(bottleneck))
    torch.testing.assert_close(found.sum(dim=(1, 2)), difference, atol=2e-3, rtol=1e-2)


@every_method
@pytest.mark.parametrize("architecture", typing.get_args(Architecture))
def test_every_method_works_with_every_architecture(method: str, architecture: str) -> None:
    network, x = network_of(architecture), heads(2, 32)
    found = explain(network, x, features_of(network, x), method)  # type: ignore[arg-type]
    assert found.shape == (2, 32, 32)
    assert found.max() == pytest.approx(1.0)
    assert found.min() >= 0
    assert not found[~(x != 0).any(dim=1).numpy()].any()


@every_method
def test_a_slice_of_nothing_has_an_empty_map(method: str) -> None:
    network, x = network_of(), torch.zeros(2, 4, 32, 32)
    found = explain(network, x, features_of(network, x), method)  # type: ignore[arg-type]
    assert found.shape == (2, 32, 32)
    assert not found.any()


@every_method
def test_a_slices_map_does_not_depend_on_its_mates(method: str) -> None:
    network, x = network_of(), heads(3, 32)
    together = explain(network, x, features_of(network, x), method)  # type: ignore[arg-type]
    for at in range(3):
        alone = explain(network, x[at : at + 1], features_of(network, x[at : at + 1]), method)  # type: ignore[arg-type]
        np.testing.assert_allclose(alone[0], together[at], atol=1e-3)


def test_a_head_that_finds_nothing_gives_an_empty_map() -> None:
    network, x = network_of(), heads(1)
    with torch.no_grad():
        network.head.layers[3].weight.zero_()
    for method in EXPLAIN_METHODS:
        assert not explain(network, x, features_of(network, x), method).any()  # type: ignore[arg-type]


def test_traced_features_are_the_encoders_and_need_no_further_pass() -> None:
    network, x = network_of(), heads()
    for parameter in network.parameters():
        parameter.requires_grad_(False)  # as in the Predictor
    traced = trace_features(network, x)
    for one, other in zip(traced, features_of(network, x), strict=True):
        torch.testing.assert_close(one.detach(), other)
    ran: list[int] = []
    hook = network.encoder.register_forward_hook(lambda *_: ran.append(1))
    explain(network, x, traced, "hirescam")
    hook.remove()
    assert not ran


def test_grad_cam_without_a_head_lights_the_whole_slice() -> None:
    network, x = network_of(), heads()
    bottleneck = features_of(network, x)[-1]
    everywhere, inside = grad_cam(network, bottleneck), grad_cam(network, bottleneck, (x != 0).any(dim=1))
    assert everywhere.max() == inside.max() == pytest.approx(1.0)
    assert not inside[~(x != 0).any(dim=1).numpy()].any()


@every_method
def test_the_predictor_gives_the_map_of_the_method_in_one_encoder_pass(method: str, tmp_path: object) -> None:
    meta = BundleMeta(architecture=ModelConfig(preset="tiny"), preprocessing=SliceConfig(size=32))
    predictor = Predictor(write_bundle(tmp_path / "b", network_of().state_dict(), meta), "cpu")  # type: ignore[operator]
    image = heads(1, 40)[0, :1].numpy() * 100 + 500 * heads(1, 40)[0, :1].numpy().astype(bool)
    ran: list[int] = []
    hook = predictor.network.encoder.register_forward_hook(lambda *_: ran.append(1))
    (found,) = predictor.predict([SliceInput(image, ("flair",))], PredictOptions(("explain",), explain_method=method))
    hook.remove()
    assert found.gradcam.shape == (40, 40)
    assert found.gradcam.max() > 0
    assert not found.gradcam[image[0] == 0].any()
    assert (len(ran) == 1) is (method != "occlusion")
