"""Flips, rotation, zoom and elastic displacement: one sampling grid per slice, the same for image and regions."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from slicewise.config import AugmentConfig
from slicewise.slices.augment.draw import chosen, symmetric

# Control points along a side: displacements vary over about a fifth of the slice.
LATTICE = 6


def move(image: Tensor, regions: Tensor, config: AugmentConfig, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mirror, turn, zoom and bend the chosen slices.

    Args:
        image: ``[N, C, H, W]``, sampled linearly; only what was head stays head.
        regions: ``[N, R, H, W]``, sampled at the nearest pixel.
        config: Shares and strengths.
        generator: Source of all randomness.

    Returns:
        Both, moved.
    """
    n = len(image)
    mirrored = chosen(n, config.flip, 1.0, generator)
    theta, turned = _affine(n, config, generator)
    shift, bent = _displacement(n, config, generator)
    if mirrored.any():
        where = mirrored.to(image.device)[:, None, None, None]
        image = torch.where(where, image.flip(3), image)
        regions = torch.where(where, regions.flip(3), regions)
    rows = (turned | bent).nonzero()[:, 0]
    if not len(rows):
        return image, regions
    grid = _grid(theta[rows], shift[rows], image.shape[-2:]).to(image.device)
    rows = rows.to(image.device)
    moved, labels = _sample(image[rows], regions[rows], grid)
    return image.index_copy(0, rows, moved), regions.index_copy(0, rows, labels)


def _affine(n: int, config: AugmentConfig, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Maps ``[N, 2, 3]`` from output to input coordinates, and which of them do something ``[N]``."""
    turn = chosen(n, config.rotate_share, config.rotate_degrees, generator)
    angle = torch.where(turn, symmetric((n,), generator) * math.radians(config.rotate_degrees), 0.0)
    zoom = chosen(n, config.scale_share, config.scale, generator)
    factor = torch.where(zoom, 1.0 + symmetric((n,), generator) * config.scale, 1.0)
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = factor * angle.cos()
    theta[:, 1, 0] = factor * angle.sin()
    theta[:, 0, 1] = -theta[:, 1, 0]
    return theta, turn | zoom


def _displacement(n: int, config: AugmentConfig, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Coarse displacements ``[N, 2, L, L]`` in sampling coordinates, where a slice is 2 wide, and which are used."""
    bent = chosen(n, config.elastic_share, config.elastic, generator)
    strength = 2.0 * config.elastic * torch.rand(n, generator=generator) * bent
    return symmetric((n, 2, LATTICE, LATTICE), generator) * strength[:, None, None, None], bent


def _grid(theta: Tensor, shift: Tensor, size: torch.Size) -> Tensor:
    """Sampling positions ``[N, H, W, 2]``: the affine map plus the bicubic displacement."""
    grid = functional.affine_grid(theta, [len(theta), 1, *size], align_corners=False)
    if not shift.any():
        return grid
    fine = functional.interpolate(shift, tuple(size), mode="bicubic", align_corners=True)
    return grid + fine.permute(0, 2, 3, 1)


def _sample(image: Tensor, regions: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
    """Image linearly, regions and the head at the nearest pixel, so that labels stay inside the head."""
    head = image.any(dim=1, keepdim=True).to(regions.dtype)
    exact = functional.grid_sample(torch.cat([regions, head], dim=1), grid, mode="nearest", align_corners=False)
    moved = functional.grid_sample(image, grid, mode="bilinear", align_corners=False)
    return moved.mul_(exact[:, -1:]), exact[:, :-1]
