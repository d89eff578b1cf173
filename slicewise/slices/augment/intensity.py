"""Brightness, contrast, gamma, bias field, blur and noise: each modality of each slice by itself.

A plane is one modality of one slice. Only pixels of the head change; the background, 0, stays 0. Strengths are
relative to the head's own spread or range, so they mean the same after any normalisation.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from numpy.polynomial import legendre
from torch import Tensor
from torch.nn import functional

from slicewise.config import AugmentConfig
from slicewise.slices.augment.draw import chosen, normal, symmetric

BIAS_DEGREE = 3
BLUR_REACH = 3.0  # standard deviations


@dataclass(frozen=True)
class Planes:
    """The planes of a batch.

    Attributes:
        values: ``[P, H, W]``, changed in place.
        head: ``[P, H, W]`` float32, 1 where there is head; nowhere for a missing modality.
        mean: ``[P, 1, 1]`` of the head before any change.
        sd: ``[P, 1, 1]`` likewise.
    """

    values: Tensor
    head: Tensor
    mean: Tensor
    sd: Tensor

    @classmethod
    def of(cls, image: Tensor) -> Planes:
        """A copy of ``[N, C, H, W]`` as planes."""
        values = image.flatten(0, 1).clone()
        head = (values != 0).to(values.dtype)
        count = head.sum(dim=(1, 2), keepdim=True).clamp_min(1.0)
        mean = values.sum(dim=(1, 2), keepdim=True) / count
        square = torch.linalg.vector_norm(values, dim=(1, 2), keepdim=True).square() / count
        return cls(values, head, mean, (square - mean.square()).clamp_min(0.0).sqrt())

    def at(self, values: Tensor, rows: Tensor) -> Tensor:
        """The values ``[P]`` of the chosen planes, ``[K, 1, 1]``, on the planes' device."""
        return values[rows].to(self.values.device)[:, None, None]

    def put(self, rows: Tensor, changed: Tensor) -> None:
        """Replace some planes, inside the head only."""
        self.values.index_copy_(0, rows, changed * self.head[rows])

    def range(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Darkest and brightest pixel of some heads, ``[K, 1, 1]``; 0 for a missing modality."""
        part, outside = self.values[rows], self.head[rows] == 0
        low = part.masked_fill(outside, math.inf).amin(dim=(1, 2), keepdim=True)
        high = part.masked_fill(outside, -math.inf).amax(dim=(1, 2), keepdim=True)
        missing = torch.isinf(low)
        return low.masked_fill(missing, 0.0), high.masked_fill(missing, 0.0)


def change_levels(planes: Planes, config: AugmentConfig, generator: torch.Generator) -> None:
    """Contrast about the head's mean, then brightness in its standard deviations."""
    n = len(planes.values)
    stretched = chosen(n, config.contrast_share, config.contrast, generator)
    gain = torch.where(stretched, 1.0 + config.contrast * symmetric((n,), generator), 1.0)
    shifted = chosen(n, config.brightness_share, config.brightness, generator)
    lift = torch.where(shifted, config.brightness * symmetric((n,), generator), 0.0)
    if not (stretched | shifted).any():
        return
    gain, lift = (value.to(planes.values.device)[:, None, None] for value in (gain, lift))
    # All planes at once: most are chosen, and a plane with gain 1 and lift 0 stays as it is.
    planes.values.mul_(gain).addcmul_(planes.head, planes.mean * (1.0 - gain) + lift * planes.sd)


def change_gamma(planes: Planes, config: AugmentConfig, generator: torch.Generator) -> None:
    """A power law on the head's own range, which keeps its ends where they are."""
    n = len(planes.values)
    picked = chosen(n, config.gamma_share, config.gamma, generator).nonzero()[:, 0]
    power = torch.exp(math.log1p(config.gamma) * symmetric((n,), generator))
    if not len(picked):
        return
    power, rows = planes.at(power, picked), picked.to(planes.values.device)
    low, high = planes.range(rows)
    span = (high - low).clamp_min(1e-6)
    share = planes.values[rows].sub_(low).div_(span).clamp_(0.0, 1.0)
    planes.put(rows, share.pow_(power).mul_(span).add_(low))


def multiply_bias(planes: Planes, config: AugmentConfig, generator: torch.Generator) -> None:
    """A smooth field like that of a receive coil: the exponential of a polynomial of degree 3.

    Source: Van Leemput et al., "Automated model-based bias field correction of MR images of the brain", TMI 1999.
    The signal is measured from the head's darkest pixel, as normalised intensities have no natural zero.
    """
    n, height, width = planes.values.shape
    picked = chosen(n, config.bias_share, config.bias, generator).nonzero()[:, 0]
    strength = config.bias * torch.rand(n, generator=generator)
    weights = symmetric((n, len(_degrees())), generator)
    if not len(picked):
        return
    field = (weights[picked] @ _polynomials(height, width)).to(planes.values.device)
    field = (field / field.abs().amax(dim=1, keepdim=True).clamp_min(1e-6)).view(-1, height, width)
    rows = picked.to(planes.values.device)
    low, _ = planes.range(rows)
    factor = field.mul_(planes.at(strength, picked)).exp_()
    planes.put(rows, planes.values[rows].sub_(low).mul_(factor).add_(low))


def smooth(planes: Planes, config: AugmentConfig, generator: torch.Generator) -> None:
    """Gaussian blur, each plane with its own width; the background is left out rather than smeared in."""
    n = len(planes.values)
    picked = chosen(n, config.blur_share, config.blur, generator).nonzero()[:, 0]
    sigma = config.blur * torch.rand(n, generator=generator)
    if not len(picked):
        return
    rows = picked.to(planes.values.device)
    kernels = _gaussians(sigma[picked], math.ceil(BLUR_REACH * config.blur)).to(planes.values.device)
    weight = _convolve(planes.head[rows], kernels)
    planes.put(rows, _convolve(planes.values[rows], kernels) / weight.clamp_min(1e-6))


def sprinkle(planes: Planes, config: AugmentConfig, generator: torch.Generator) -> None:
    """Gaussian noise, in standard deviations of the head."""
    n, height, width = planes.values.shape
    picked = chosen(n, config.noise_share, config.noise, generator).nonzero()[:, 0]
    strength = config.noise * torch.rand(n, generator=generator)
    if not len(picked):
        return
    rows = picked.to(planes.values.device)
    noise = normal((len(picked), height, width), generator, planes.values.device)
    noise.mul_(planes.head[rows]).mul_(planes.at(strength, picked) * planes.sd[rows])
    planes.values.index_add_(0, rows, noise)


def _degrees() -> list[tuple[int, int]]:
    """The degrees along rows and columns of the field's terms: 1 to 3 in total."""
    return [(i, j) for i in range(BIAS_DEGREE + 1) for j in range(BIAS_DEGREE + 1 - i) if i + j]


@functools.lru_cache(maxsize=8)
def _polynomials(height: int, width: int) -> Tensor:
    """Products of Legendre polynomials over the slice, ``[terms, H × W]``."""
    rows, columns = (
        torch.from_numpy(legendre.legvander(torch.linspace(-1, 1, n).double().numpy(), BIAS_DEGREE)).float()
        for n in (height, width)
    )
    return torch.stack([torch.outer(rows[:, i], columns[:, j]).flatten() for i, j in _degrees()])


def _gaussians(sigma: Tensor, reach: int) -> Tensor:
    """Kernels ``[K, 2 × reach + 1]`` that sum to 1."""
    steps = torch.arange(-reach, reach + 1, dtype=torch.float32)
    kernels = torch.exp(-0.5 * (steps / sigma[:, None].clamp_min(1e-3)).square())
    return kernels / kernels.sum(dim=1, keepdim=True)


def _convolve(part: Tensor, kernels: Tensor) -> Tensor:
    """Each plane ``[K, H, W]`` with its own separable kernel, all in two grouped convolutions."""
    count, taps = kernels.shape
    once = functional.conv2d(part[None], kernels.view(count, 1, taps, 1), padding=(taps // 2, 0), groups=count)
    return functional.conv2d(once, kernels.view(count, 1, 1, taps), padding=(0, taps // 2), groups=count)[0]
