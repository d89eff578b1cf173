"""Integrated gradients of the classification output, on the encoder's bottleneck."""

from __future__ import annotations

import torch
from torch import Tensor

from slicewise.model.network import MultiTaskUNet

STEPS = 16


def integrated_gradients(network: MultiTaskUNet, bottleneck: Tensor, steps: int = STEPS) -> Tensor:
    """How much each place of the bottleneck adds to the tumour logit.

    After Sundararajan et al., "Axiomatic attribution for deep networks", ICML 2017, on features instead of pixels:
    the encoder's pass is shared. The path starts at features of 0, which is how dropout has shown the head what
    "nothing found" looks like. Attributions add up to the logit minus the logit there (completeness), up to the
    error of the mid-point sum.

    Args:
        network: The network in evaluation mode.
        bottleneck: ``[N, C, h, w]`` features of the deepest level.
        steps: Points of the path.

    Returns:
        ``[N, h, w]``, in logits; above 0 where the place speaks for tumour.
    """
    with torch.inference_mode(False), torch.enable_grad():
        features = bottleneck.detach().clone()
        shares = (torch.arange(steps, device=features.device, dtype=features.dtype) + 0.5) / steps
        path = (shares[:, None, None, None, None] * features).flatten(0, 1).requires_grad_(True)
        (gradients,) = torch.autograd.grad(network.head(path).sum(), path)
    mean = torch.unflatten(gradients, 0, (steps, len(features))).mean(dim=0)
    evidence: Tensor = (mean * features).sum(dim=1)
    return evidence
