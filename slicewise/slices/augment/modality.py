"""Withholding modalities at random."""

from __future__ import annotations

import torch
from torch import Tensor


def drop_modalities(image: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Zero each channel with probability ``share``, never the last one that a slice has.

    This is what lets one model serve any subset of the modalities (Neverova et al., "ModDrop", PAMI 2016).

    Args:
        image: ``[N, C, H, W]``; a channel that is 0 everywhere is missing.
        share: Probability for each channel.
        generator: Source of all randomness.
    """
    order = torch.rand(image.shape[:2], generator=generator).to(image.device)
    if share == 0:
        return image
    present = image.flatten(2).any(dim=2)
    keep = present & (order >= share)
    best = torch.where(present, order, torch.full_like(order, -1.0)).argmax(dim=1, keepdim=True)
    keep = keep | torch.zeros_like(keep).scatter(1, best, True)
    return image.masked_fill(~keep[:, :, None, None], 0.0)
