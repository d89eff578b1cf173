"""Random numbers for augmentation: all of them from explicit generators, none from torch's global one."""

from __future__ import annotations

import torch
from torch import Tensor


def spawn(generator: torch.Generator, count: int) -> list[torch.Generator]:
    """Independent CPU generators, seeded from ``generator``."""
    seeds = torch.randint(2**62, (count,), generator=generator).tolist()
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def symmetric(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Uniform numbers in [-1, 1)."""
    return 2.0 * torch.rand(shape, generator=generator) - 1.0


def chosen(count: int, share: float, strength: float, generator: torch.Generator) -> Tensor:
    """Which of ``count`` a change touches, ``[count]`` bool; none where the strength is 0."""
    return (torch.rand(count, generator=generator) < share) & (strength > 0)


def normal(shape: tuple[int, ...], generator: torch.Generator, device: torch.device) -> Tensor:
    """Standard normal numbers on ``device``; a GPU makes its own, from a seed of ``generator``."""
    if device.type == "cpu":
        return torch.randn(shape, generator=generator)
    seed = int(torch.randint(2**62, (1,), generator=generator))
    return torch.randn(shape, generator=torch.Generator(device).manual_seed(seed), device=device)
