"""Random changes of a training batch, vectorised over the batch on the batch's device."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from slicewise.config import AugmentConfig
from slicewise.slices.batches import Batch


def augment(batch: Batch, config: AugmentConfig, generator: torch.Generator) -> Batch:
    """Flip, rotate, scale, change brightness, add noise, and drop modalities.

    Args:
        batch: A training batch.
        config: Strengths; 0 switches a change off.
        generator: Source of all randomness.
    """
    image, regions = _move(batch.image, batch.regions, config, generator)
    image = _intensity(image, config, generator)
    return replace(batch, image=drop_modalities(image, config.modality_dropout, generator), regions=regions)


def _move(image: Tensor, regions: Tensor, config: AugmentConfig, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """One affine map per slice, the same for image and regions."""
    n = len(image)
    angle = _uniform(n, math.radians(config.rotate_degrees), generator)
    zoom = 1.0 + _uniform(n, config.scale, generator)
    flip = 1.0 - 2.0 * (torch.rand(n, generator=generator) < config.flip).float()
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0], theta[:, 0, 1] = flip * zoom * angle.cos(), -zoom * angle.sin()
    theta[:, 1, 0], theta[:, 1, 1] = flip * zoom * angle.sin(), zoom * angle.cos()
    grid = functional.affine_grid(theta, list(image.shape), align_corners=False).to(image.device)
    moved = functional.grid_sample(image, grid, mode="bilinear", align_corners=False)
    labels = functional.grid_sample(regions, grid, mode="nearest", align_corners=False)
    return moved, labels


def _intensity(image: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Gain, shift and noise per channel, inside the head only: the background stays exactly 0."""
    n, channels = image.shape[:2]
    gain = 1.0 + _uniform(n * channels, config.intensity, generator).reshape(n, channels, 1, 1)
    shift = _uniform(n * channels, config.intensity, generator).reshape(n, channels, 1, 1)
    noise = config.noise * torch.randn(image.shape, generator=generator)
    changed = image * gain.to(image.device) + shift.to(image.device) + noise.to(image.device)
    return torch.where(image == 0, image, changed)


def drop_modalities(image: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Zero each channel with probability ``share``, never the last one that a slice has.

    This is what lets one model serve any subset of the modalities (Neverova et al., "ModDrop", PAMI 2016).
    """
    present = (image != 0).flatten(2).any(dim=2)
    order = torch.rand(present.shape, generator=generator).to(image.device)
    keep = present & (order >= share)
    best = torch.where(present, order, torch.full_like(order, -1.0)).argmax(dim=1, keepdim=True)
    keep = keep | torch.zeros_like(keep).scatter(1, best, True)
    return image * keep[:, :, None, None]


def _uniform(n: int, limit: float, generator: torch.Generator) -> Tensor:
    return (2.0 * torch.rand(n, generator=generator) - 1.0) * limit
