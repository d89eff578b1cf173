"""MedNeXt in two dimensions, of MONAI's blocks.

After Roy et al., "MedNeXt: transformer-driven scaling of ConvNets for medical image segmentation", MICCAI 2023:
ConvNeXt blocks (depth-wise convolution, normalisation per channel, expansion, compression) with residual
down- and up-sampling, and skips that are added.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from slicewise.model.blocks import DEPTH, Decoder, OutputConfig, PyramidEncoder

BASE_FILTERS = {"tiny": 8, "small": 16, "medium": 32, "large": 64}
KERNEL = 5
EXPANSION = 2
REPEATS = 2


class MedNeXtEncoder(PyramidEncoder):
    """A 1×1 stem, then five levels of residual blocks; each halves height and width and doubles the channels."""

    def __init__(self, in_channels: int, base_filters: int) -> None:
        # MONAI takes seconds to import: only who asks for this network pays for it.
        from monai.networks.blocks.mednext_block import MedNeXtBlock, MedNeXtDownBlock

        widths = [base_filters * 2**level for level in range(DEPTH)]
        super().__init__(in_channels, widths)
        self.stem = nn.Conv2d(in_channels, base_filters, kernel_size=1)
        self.downs = nn.ModuleList(_block(MedNeXtDownBlock, a, b) for a, b in itertools.pairwise(widths))
        self.blocks = nn.ModuleList(_repeated(MedNeXtBlock, width) for width in widths)

    def levels(self, x: Tensor) -> list[Tensor]:
        """Features of every level, finest first."""
        features = [self.blocks[0](self.stem(x))]
        for down, block in zip(self.downs, self.blocks[1:], strict=True):
            features.append(block(down(features[-1])))
        return features


def mednext_encoder(in_channels: int, preset: str) -> PyramidEncoder:
    """The encoder of a preset."""
    return MedNeXtEncoder(in_channels, BASE_FILTERS[preset])


def mednext_decoder(encoder: PyramidEncoder, preset: str, output: OutputConfig) -> Decoder:
    """The encoder's mirror."""
    from monai.networks.blocks.mednext_block import MedNeXtBlock, MedNeXtUpBlock

    widths: Sequence[int] = encoder.widths[::-1]
    ups = [_block(MedNeXtUpBlock, a, b) for a, b in itertools.pairwise(widths)]
    blocks = [_repeated(MedNeXtBlock, width) for width in widths[1:]]
    return Decoder(ups, blocks, widths[1:], output, add_skips=True)


def _repeated(kind: Callable[..., Any], width: int) -> nn.Sequential:
    return nn.Sequential(*(_block(kind, width, width) for _ in range(REPEATS)))


def _block(kind: Callable[..., Any], before: int, after: int) -> nn.Module:
    """One of MONAI's blocks, without the first convolution's bias, which the normalisation takes away again."""
    block: nn.Module = kind(
        before, after, expansion_ratio=EXPANSION, kernel_size=KERNEL, use_residual_connection=True, dim="2d"
    )
    block.get_submodule("conv1").register_parameter("bias", None)
    return block
