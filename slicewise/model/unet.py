"""The plain U-Net's encoder and decoder.

After Ronneberger et al., "U-Net", MICCAI 2015, with instance normalisation and leaky ReLU as in nnU-Net
(Isensee et al., Nature Methods 2021).
"""

from __future__ import annotations

from torch import Tensor, nn

from slicewise.model.blocks import DEPTH, ConvBlock, Decoder, OutputConfig, PyramidEncoder, concatenating_decoder

BASE_FILTERS = {"tiny": 8, "small": 16, "medium": 32, "large": 64}


class Encoder(PyramidEncoder):
    """Five levels; each halves height and width and doubles the channels."""

    def __init__(self, in_channels: int, base_filters: int) -> None:
        widths = [base_filters * 2**level for level in range(DEPTH)]
        super().__init__(in_channels, widths)
        self.blocks = nn.ModuleList(
            ConvBlock(before, after) for before, after in zip([in_channels, *widths], widths, strict=False)
        )
        self.pool = nn.MaxPool2d(2)

    def levels(self, x: Tensor) -> list[Tensor]:
        """Features of every level, finest first."""
        features: list[Tensor] = []
        for level, block in enumerate(self.blocks):
            x = block(x if level == 0 else self.pool(x))
            features.append(x)
        return features


def unet_encoder(in_channels: int, preset: str) -> PyramidEncoder:
    """The encoder of a preset."""
    return Encoder(in_channels, BASE_FILTERS[preset])


def unet_decoder(encoder: PyramidEncoder, preset: str, output: OutputConfig) -> Decoder:
    """The encoder's mirror."""
    skips = encoder.widths[-2::-1]
    return concatenating_decoder(skips, encoder.widths[-1], skips, output)
