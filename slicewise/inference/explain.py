"""Where in a slice the evidence for "tumour" lies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from slicewise.inference.integrated_gradients import integrated_gradients
from slicewise.inference.occlusion import occlusion_drops
from slicewise.model.network import DEPTH, MultiTaskUNet

ExplainMethod = Literal["gradcam", "hirescam", "integrated_gradients", "occlusion"]
EXPLAIN_METHODS: tuple[str, ...] = get_args(ExplainMethod)
# HiResCAM looks at features of a quarter of the slice's size: the bottleneck's pixels are larger than most tumours.
HIRES_LEVEL = 2


def explain(
    network: MultiTaskUNet, image: Tensor, features: Sequence[Tensor], method: ExplainMethod = "gradcam"
) -> NDArray[np.float32]:
    """A map of the evidence for "tumour", inside the head.

    Grad-CAM and integrated gradients need no further pass of the encoder; nor does HiResCAM with the features of
    ``trace_features``. Occlusion needs one per window.

    Args:
        network: In evaluation mode.
        image: ``[N, C, H, W]``, the network's input: 0 outside the head.
        features: The encoder's, for ``image``, finest first.
        method: How.

    Returns:
        ``[N, H, W]``: 0 to 1, the strongest evidence in the head; all 0 where nothing speaks for tumour.
    """
    head = (image != 0).any(dim=1)
    if method == "occlusion":
        return scale_to_peak(occlusion_drops(network, image), head)
    if method == "integrated_gradients":
        return scale_to_peak(_enlarge(functional.relu(integrated_gradients(network, features[-1]))), head)
    if method == "hirescam":
        return scale_to_peak(_hires_cam(network, image, features), head)
    return grad_cam(network, features[-1], head)


def trace_features(network: MultiTaskUNet, image: Tensor) -> list[Tensor]:
    """The encoder's features with the graph that HiResCAM goes back through."""
    with torch.inference_mode(False), torch.enable_grad():
        # The weights need no gradient, so that the graph starts at the image.
        return network.encoder(image.clone().requires_grad_(True))  # type: ignore[no-any-return]


def grad_cam(network: MultiTaskUNet, bottleneck: Tensor, head: Tensor | None = None) -> NDArray[np.float32]:
    """Where the bottleneck's features speak for "tumour".

    After Selvaraju et al., "Grad-CAM", ICCV 2017. Only the head is differentiated, so the encoder's pass is shared.

    Args:
        network: The network in evaluation mode.
        bottleneck: ``[N, C, h, w]`` features of the deepest level.
        head: ``[N, H, W]`` bool: where the map is wanted; None for everywhere.

    Returns:
        ``[N, H, W]`` in 0..1 at the network's input size; all zero where no feature speaks for tumour.
    """
    with torch.inference_mode(False), torch.enable_grad():
        features = bottleneck.detach().clone().requires_grad_(True)
        (gradients,) = torch.autograd.grad(network.head(features).sum(), features)
        weights = gradients.mean(dim=(2, 3), keepdim=True)
        cam = functional.relu((weights * features).sum(dim=1)).detach()
    return scale_to_peak(_enlarge(cam), head)


def _hires_cam(network: MultiTaskUNet, image: Tensor, features: Sequence[Tensor]) -> Tensor:
    """Evidence ``[N, H, W]``: gradient times feature at each place, summed over channels.

    After Draelos and Carin, "Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional neural
    networks", 2020. Grad-CAM averages a channel's gradient over the slice. This head takes each channel's maximum, so
    the gradient is that of one place, and the average lends it to all others.
    """
    traced = features if features[-1].requires_grad else trace_features(network, image)
    level = traced[HIRES_LEVEL]
    with torch.inference_mode(False), torch.enable_grad():
        (gradients,) = torch.autograd.grad(network.head(traced[-1]).sum(), level)
    return _enlarge(functional.relu((gradients * level.detach()).sum(dim=1)), HIRES_LEVEL)


def scale_to_peak(evidence: Tensor, head: Tensor | None = None) -> NDArray[np.float32]:
    """Evidence ``[N, H, W]`` in the head, without what speaks against tumour, over each map's greatest value."""
    positive = functional.relu(evidence)
    if head is not None:
        positive = positive * head
    peak = positive.amax(dim=(1, 2), keepdim=True)
    scaled = torch.where(peak > 0, positive / peak.clamp_min(1e-12), torch.zeros_like(positive))
    return scaled.float().cpu().numpy()


def _enlarge(coarse: Tensor, level: int = DEPTH - 1) -> Tensor:
    """A map of a level's size ``[N, h, w]``, by default the bottleneck's, to the input's."""
    return functional.interpolate(coarse[:, None], scale_factor=2**level, mode="bilinear", align_corners=False)[:, 0]
