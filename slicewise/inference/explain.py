"""Grad-CAM on the classification output."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from slicewise.model.network import DEPTH, MultiTaskUNet


def grad_cam(network: MultiTaskUNet, bottleneck: torch.Tensor) -> NDArray[np.float32]:
    """Where the bottleneck's features speak for "tumour".

    After Selvaraju et al., "Grad-CAM", ICCV 2017. Only the head is differentiated, so the encoder's pass is shared.

    Args:
        network: The network in evaluation mode.
        bottleneck: ``[N, C, h, w]`` features of the deepest level.

    Returns:
        ``[N, H, W]`` in 0..1 at the network's input size; all zero where no feature speaks for tumour.
    """
    with torch.inference_mode(False), torch.enable_grad():
        features = bottleneck.detach().clone().requires_grad_(True)
        (gradients,) = torch.autograd.grad(network.head(features).sum(), features)
        weights = gradients.mean(dim=(2, 3), keepdim=True)
        cam = functional.relu((weights * features).sum(dim=1, keepdim=True)).detach()
    cam = functional.interpolate(cam, scale_factor=2 ** (DEPTH - 1), mode="bilinear", align_corners=False)[:, 0]
    peak = cam.amax(dim=(1, 2), keepdim=True)
    scaled = torch.where(peak > 0, cam / peak.clamp_min(1e-12), torch.zeros_like(cam))
    return scaled.float().cpu().numpy()
