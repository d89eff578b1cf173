"""Uncertainty of the whole-tumour map by Monte-Carlo dropout."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from slicewise.model.network import MultiTaskUNet


def predictive_entropy(
    network: MultiTaskUNet, features: list[torch.Tensor], n_samples: int, temperature: float
) -> NDArray[np.float32]:
    """Entropy of the mean whole-tumour probability over dropout samples.

    After Gal and Ghahramani, "Dropout as a Bayesian approximation", ICML 2016. All dropout lies behind the
    encoder, so its features are computed once for all samples. The generator's state is put back afterwards,
    and seeded, so that the same slice always gets the same map.

    Args:
        network: The network in evaluation mode.
        features: Encoder features of ``N`` slices, finest first.
        n_samples: How many samples.
        temperature: Calibration of the whole-tumour logits.

    Returns:
        ``[N, H, W]`` in nats, from 0 (sure) to ln 2.
    """
    dropouts = [module for module in network.modules() if isinstance(module, nn.Dropout | nn.Dropout2d)]
    devices = [features[0].device] if features[0].is_cuda else []
    with torch.random.fork_rng(devices=devices):
        try:
            for module in dropouts:
                module.train()
            means = [
                _mean_probability(network, [level[at : at + 1] for level in features], n_samples, temperature)
                for at in range(len(features[0]))
            ]
        finally:
            for module in dropouts:
                module.eval()
    mean = torch.stack(means).clamp(1e-7, 1 - 1e-7)
    entropy = -(mean * mean.log() + (1 - mean) * (1 - mean).log())
    return entropy.cpu().numpy()


def _mean_probability(
    network: MultiTaskUNet, features: list[torch.Tensor], n_samples: int, temperature: float
) -> torch.Tensor:
    """Mean whole-tumour probability ``[H, W]`` of one slice; seeded for itself, whatever its batch mates."""
    torch.manual_seed(0)
    total = torch.zeros_like(features[0][0, 0], dtype=torch.float32)
    for _ in range(n_samples):
        regions = network.from_features(features).regions
        assert regions is not None  # segment=True always decodes
        total += torch.sigmoid(regions[0, 0].float() / temperature)
    return total / n_samples
