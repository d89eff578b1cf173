"""The decoder for many samples of the same slices: what does not depend on the sample is computed once.

Skips come from the encoder, where nothing is dropped. A convolution of skip and decoded features beside each other is
the sum of one convolution of each, so the skip's half is the same in every sample: a third of the decoder's work.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from slicewise.model.blocks import ConvBlock, Decoder


class SampleDecoder:
    """A decoder at work on the features of some slices.

    Args:
        decoder: In evaluation mode; its dropouts know which samples come next.
        features: The encoder's, of ``G`` slices, finest first.
    """

    def __init__(self, decoder: Decoder, features: Sequence[Tensor]) -> None:
        self._decoder = decoder
        self._skips = list(features[:-1])
        blocks = list(decoder.blocks)
        # A decoder of other blocks, or one that adds its skips, has no such sum.
        splits = not decoder.add_skips and all(isinstance(block, ConvBlock) for block in blocks)
        self._levels = [
            _Level(cast("ConvBlock", block), skip)
            for block, skip in zip(blocks if splits else [], reversed(self._skips), strict=False)
        ]

    def __call__(self, bottleneck: Tensor, n_samples: int) -> Tensor:
        """Region logits ``[G * n_samples, 3, H, W]``, a slice's samples beside each other.

        Args:
            bottleneck: ``[G * n_samples, C, h, w]``, in the same order, after its own dropout.
            n_samples: How many of each slice.
        """
        if not self._levels:
            skips = [skip.repeat_interleave(n_samples, dim=0) for skip in self._skips]
            return cast("Tensor", self._decoder([*skips, bottleneck]))
        x = bottleneck
        for level, up, dropout in zip(self._levels, self._decoder.ups, self._decoder.dropouts, strict=True):
            x = dropout(level(up(x)))
        return cast("Tensor", self._decoder.out(x))


class _Level:
    """A convolution block that has seen its skip already."""

    def __init__(self, block: ConvBlock, skip: Tensor) -> None:
        convolution = cast("nn.Conv2d", block.layers[0])
        sides = [skip.shape[1], convolution.in_channels - skip.shape[1]]
        of_skip, self._weight = torch.split(convolution.weight, sides, dim=1)
        self._skip_half = conv2d(skip, of_skip, padding=convolution.padding)
        self._padding = convolution.padding
        self._rest = block.layers[1:]

    def __call__(self, x: Tensor) -> Tensor:
        half = conv2d(x, self._weight, padding=self._padding)
        by_slice = torch.unflatten(half, 0, (len(self._skip_half), -1))
        by_slice += self._skip_half[:, None]
        return cast("Tensor", self._rest(half))
