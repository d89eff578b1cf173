"""The multi-task U-Net: one encoder, a decoder for WT/TC/ET, a classification head on the bottleneck.

After Ronneberger et al., "U-Net", MICCAI 2015, with instance normalisation and leaky ReLU as in nnU-Net
(Isensee et al., Nature Methods 2021): instance statistics keep the answer for one slice independent of what
else is in its batch, which dynamic batching in serving depends on.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from slicewise.config import REGIONS, ModelConfig

BASE_FILTERS = {"small": 16, "medium": 32, "large": 64}
DEPTH = 5
HEAD_SHARE = 5


@dataclass(frozen=True)
class Logits:
    """Raw outputs.

    Attributes:
        tumour: ``[N]`` logit of "this slice shows tumour".
        regions: ``[N, 3, H, W]`` logits of WT, TC, ET, or None when the decoder was not run.
    """

    tumour: Tensor
    regions: Tensor | None


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


class Encoder(nn.Module):
    """Five levels; each halves height and width and doubles the channels."""

    def __init__(self, in_channels: int, base_filters: int) -> None:
        super().__init__()
        widths = [base_filters * 2**level for level in range(DEPTH)]
        self.blocks = nn.ModuleList(
            ConvBlock(before, after) for before, after in zip([in_channels, *widths], widths, strict=False)
        )
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Features of every level, finest first."""
        features: list[Tensor] = []
        for level, block in enumerate(self.blocks):
            x = block(x if level == 0 else self.pool(x))
            features.append(x)
        return features


class Decoder(nn.Module):
    """Up-convolutions with skip connections; dropout in the two coarsest levels gives MC samples variance."""

    def __init__(self, base_filters: int, out_channels: int, dropout: float) -> None:
        super().__init__()
        widths = [base_filters * 2**level for level in reversed(range(DEPTH))]
        pairs = list(itertools.pairwise(widths))
        self.ups = nn.ModuleList(nn.ConvTranspose2d(a, b, kernel_size=2, stride=2) for a, b in pairs)
        self.blocks = nn.ModuleList(ConvBlock(a, b) for a, b in pairs)
        self.dropouts = nn.ModuleList(nn.Dropout2d(dropout if level < 2 else 0.0) for level in range(len(pairs)))
        self.out = nn.Conv2d(base_filters, out_channels, kernel_size=1)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Encoder features, finest first, to logits ``[N, out_channels, H, W]``."""
        x = features[-1]
        for skip, up, block, dropout in zip(
            reversed(features[:-1]), self.ups, self.blocks, self.dropouts, strict=True
        ):
            x = dropout(block(torch.cat([skip, up(x)], dim=1)))
        return self.out(x)  # type: ignore[no-any-return]


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


class MultiTaskUNet(nn.Module):
    """Tumour presence and extent from one encoder pass.

    Args:
        in_channels: One per modality.
        config: Preset and dropout.
    """

    def __init__(self, in_channels: int, config: ModelConfig) -> None:
        super().__init__()
        base = BASE_FILTERS[config.preset]
        self.encoder = Encoder(in_channels, base)
        # On the bottleneck, so that MC samples of both outputs vary while the encoder runs once.
        self.dropout = nn.Dropout2d(config.dropout)
        self.decoder = Decoder(base, len(REGIONS), config.dropout)
        self.head = Head(base * 2 ** (DEPTH - 1), config.dropout)

    def forward(self, x: Tensor, *, segment: bool = True) -> Logits:
        """One pass.

        Args:
            x: ``[N, C, H, W]`` z-scores; H and W multiples of 16.
            segment: Whether to run the decoder.
        """
        return self.from_features(self.encoder(x), segment=segment)

    def from_features(self, features: list[Tensor], *, segment: bool = True) -> Logits:
        """Head and decoder on features that ``encoder`` has made."""
        dropped = [*features[:-1], self.dropout(features[-1])]
        return Logits(self.head(dropped[-1]), self.decoder(dropped) if segment else None)


def count_parameters(network: nn.Module) -> int:
    """How many weights a network has."""
    return sum(parameter.numel() for parameter in network.parameters())
