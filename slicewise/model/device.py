"""Where networks run, and in which memory layout."""

from __future__ import annotations

from typing import TypeVar, cast

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


def choose_device(name: str = "auto") -> torch.device:
    """The device called ``name``; ``auto`` takes CUDA where it is there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def memory_format(device: torch.device, layout: str = "auto") -> torch.memory_format:
    """The layout of that name; ``auto`` is ``channels_last`` on CUDA, where it feeds the tensor cores.

    On CPUs instance normalisation is slow in that layout: a training step of the small network took 1.2 times
    as long as with the contiguous one (``benchmarks/memory_format.py``).
    """
    last = layout == "channels_last" or (layout == "auto" and device.type == "cuda")
    return torch.channels_last if last else torch.contiguous_format


def place_network(network: M, device: torch.device, layout: str = "auto") -> M:
    """Move a network to a device, in the layout of that name."""
    moved = network.to(device)
    # torch's stubs know no ``memory_format`` for modules.
    return cast("M", moved.to(memory_format=memory_format(device, layout)))  # type: ignore[call-overload]


def place_image(image: torch.Tensor, device: torch.device, layout: str = "auto") -> torch.Tensor:
    """Move a batch ``[N, C, H, W]`` to a device as float32, in the layout of that name."""
    return image.to(device, torch.float32).contiguous(memory_format=memory_format(device, layout))
