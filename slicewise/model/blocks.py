"""What the architectures share: the encoder's contract, the U-shaped decoder, the classification head.

Every encoder gives ``DEPTH`` levels of features, finest first: the first at the input's height and width, each
further one at half of the one before. Whatever works on features (Grad-CAM, dropout samples, the conditional
decoder) therefore works with every architecture.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from slicewise.errors import InputError

DEPTH = 5
HEAD_SHARE = 5
GRID = 2 ** (DEPTH - 1)
# Below, the bottleneck is a single pixel, and normalising one pixel over space says nothing.
SMALLEST = 2 * GRID


class ConvBlock(nn.Module):
    """Two 3×3 convolutions, each followed by instance normalisation and leaky ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels in (in_channels, out_channels):
            layers += [
                nn.Conv2d(channels, out_channels, kernel_size=3, padding=1, bias=False),
                nn.InstanceNorm2d(out_channels, affine=True),
                nn.LeakyReLU(0.01, inplace=True),
            ]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C_in, H, W]`` to ``[N, C_out, H, W]``."""
        return self.layers(x)  # type: ignore[no-any-return]


class PyramidEncoder(nn.Module):
    """Base of the encoders.

    Args:
        in_channels: One per modality.
        widths: Channels of every level, finest first.
    """

    def __init__(self, in_channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.widths = tuple(widths)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Features of every level, finest first.

        Args:
            x: ``[N, C, H, W]``.

        Raises:
            InputError: Another number of channels, or H or W that is no multiple of 16 or under 32.
        """
        check_image(x, self.in_channels)
        return self.levels(x)

    def levels(self, x: Tensor) -> list[Tensor]:
        """What ``forward`` gives, of an image that fits."""
        raise NotImplementedError


def check_image(x: Tensor, in_channels: int) -> None:
    """Refuse what no encoder can take.

    Raises:
        InputError: Names the shape and what is wrong with it.
    """
    shape = tuple(x.shape)
    if x.dim() != 4 or shape[1] != in_channels:
        raise InputError(f"image: shape {shape} is not [N, {in_channels}, H, W]", "give one channel per modality")
    if any(side % GRID or side < SMALLEST for side in shape[2:]):
        raise InputError(
            f"image: {shape[2]}×{shape[3]} pixels do not suit the network",
            f"height and width must be multiples of {GRID}, at least {SMALLEST}",
        )


@dataclass(frozen=True)
class OutputConfig:
    """How a decoder ends.

    Attributes:
        channels: One per region.
        dropout: Rate in the two coarsest levels.
        deep: Whether the coarser levels have outputs too.
    """

    channels: int
    dropout: float
    deep: bool = False


class Decoder(nn.Module):
    """Up-convolutions with skip connections; dropout in the two coarsest levels gives MC samples variance.

    Args:
        ups: Doubles height and width, per level, coarsest first.
        blocks: What follows the meeting with the skip, per level.
        widths: Channels that the blocks give, per level, coarsest first.
        output: How it ends.
        add_skips: Whether skips are added, as in MedNeXt, or concatenated.
    """

    def __init__(
        self,
        ups: Sequence[nn.Module],
        blocks: Sequence[nn.Module],
        widths: Sequence[int],
        output: OutputConfig,
        *,
        add_skips: bool = False,
    ) -> None:
        super().__init__()
        self.add_skips = add_skips
        self.ups = nn.ModuleList(ups)
        self.blocks = nn.ModuleList(blocks)
        self.dropouts = nn.ModuleList(
            nn.Dropout2d(output.dropout if level < 2 else 0.0) for level in range(len(widths))
        )
        self.out = nn.Conv2d(widths[-1], output.channels, kernel_size=1)
        coarser = widths[:-1] if output.deep else ()
        self.coarse = nn.ModuleList(nn.Conv2d(width, output.channels, kernel_size=1) for width in coarser)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Encoder features, finest first, to logits ``[N, out_channels, H, W]``."""
        for x in self._levels(features):
            finest = x
        return self.out(finest)  # type: ignore[no-any-return]

    def scales(self, features: list[Tensor]) -> tuple[Tensor, ...]:
        """Logits at full, half, quarter … size; only the full size without deep supervision."""
        *coarser, finest = self._levels(features)
        further = [head(x) for head, x in zip(self.coarse, coarser, strict=True)] if len(self.coarse) else []
        return (self.out(finest), *reversed(further))

    def _levels(self, features: list[Tensor]) -> Iterator[Tensor]:
        """Decoded features, coarsest first."""
        x = features[-1]
        for skip, up, block, dropout in zip(
            reversed(features[:-1]), self.ups, self.blocks, self.dropouts, strict=True
        ):
            x = skip + up(x) if self.add_skips else torch.cat([skip, up(x)], dim=1)
            x = dropout(block(x))
            yield x


def concatenating_decoder(
    skips: Sequence[int], bottleneck: int, widths: Sequence[int], output: OutputConfig
) -> Decoder:
    """The U-Net's decoder: transposed convolutions, concatenated skips, convolution blocks.

    Args:
        skips: The encoder's channels at the decoder's levels, coarsest first.
        bottleneck: The encoder's channels at its deepest level.
        widths: The decoder's own channels, coarsest first.
        output: How it ends.
    """
    before = [bottleneck, *widths[:-1]]
    ups = [nn.ConvTranspose2d(a, b, kernel_size=2, stride=2) for a, b in zip(before, widths, strict=True)]
    blocks = [ConvBlock(skip + width, width) for skip, width in zip(skips, widths, strict=True)]
    return Decoder(ups, blocks, widths, output)


class Head(nn.Module):
    """Average and maximum of the bottleneck, then two linear layers to one logit.

    The maximum lets a small lesion speak; the average alone would drown it.
    """

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        hidden = max(16, channels * HEAD_SHARE // 16)
        self.layers = nn.Sequential(
            nn.Linear(2 * channels, hidden), nn.LeakyReLU(0.01), nn.Dropout(dropout), nn.Linear(hidden, 1)
        )

    def forward(self, bottleneck: Tensor) -> Tensor:
        """``[N, C, h, w]`` to logits ``[N]``."""
        pooled = torch.cat([bottleneck.mean(dim=(2, 3)), bottleneck.amax(dim=(2, 3))], dim=1)
        return self.layers(pooled).squeeze(1)  # type: ignore[no-any-return]
