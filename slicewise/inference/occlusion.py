"""Occlusion: how the classification output falls when a part of the slice is hidden."""

from __future__ import annotations

import torch
from torch import Tensor

from slicewise.model.blocks import GRID
from slicewise.model.network import MultiTaskUNet

# A window is an eighth of the slice's side, and moves by half of that: 15 by 15 places, whatever the size.
WINDOW = GRID // 2
# Pixels of one batch of hidden slices, which bounds memory.
CHUNK_PIXELS = 32 * 128 * 128


def occlusion_drops(network: MultiTaskUNet, image: Tensor) -> Tensor:
    """By how much the tumour logit falls when a window around each pixel is hidden.

    After Zeiler and Fergus, "Visualizing and understanding convolutional networks", ECCV 2014. It asks the network
    itself, without gradients, and so it checks the other methods; the price is one encoder pass per window. What is
    hidden becomes 0 in every channel: within the head that is its mean after normalisation, so a hidden window looks
    like average tissue and adds no value that the network has not seen. Windows that touch no head are left out.

    Args:
        network: The network in evaluation mode.
        image: ``[N, C, H, W]``, the network's input: 0 outside the head.

    Returns:
        ``[N, H, W]`` in logits, the mean over the windows that hold the pixel; 0 where none was hidden.
    """
    with torch.inference_mode():
        before = network.head(network.encoder(image)[-1])
        return torch.stack([_of_slice(network, one, logit) for one, logit in zip(image, before, strict=True)])


def _of_slice(network: MultiTaskUNet, image: Tensor, before: Tensor) -> Tensor:
    height, width = image.shape[1:]
    head = (image != 0).any(dim=0)
    windows = [window for window in _windows(height, width) if head[window].any()]
    total, count = torch.zeros((2, height, width), device=image.device)
    chunk = max(1, CHUNK_PIXELS // (height * width))
    for start in range(0, len(windows), chunk):
        part = windows[start : start + chunk]
        hidden = image.repeat(len(part), 1, 1, 1)
        for copy, window in zip(hidden, part, strict=True):
            copy[:, *window] = 0
        drops = before - network.head(network.encoder(hidden)[-1])
        for window, drop in zip(part, drops, strict=True):
            total[window] += drop
            count[window] += 1
    mean: Tensor = total / count.clamp_min(1)
    return mean


def _windows(height: int, width: int) -> list[tuple[slice, slice]]:
    """Rows and columns of every place of the window; sides are multiples of ``GRID``, so that no rest remains."""
    tall, wide = height // WINDOW, width // WINDOW
    return [
        (slice(top, top + tall), slice(left, left + wide))
        for top in range(0, height - tall + 1, tall // 2)
        for left in range(0, width - wide + 1, wide // 2)
    ]
