"""A U-Net whose encoder is an EfficientNet, from MONAI.

After Tan and Le, "EfficientNet: Rethinking model scaling for convolutional neural networks", ICML 2019.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from slicewise.model.blocks import DEPTH, ConvBlock, Decoder, OutputConfig, PyramidEncoder, concatenating_decoder

# Width and depth coefficients of B0, B2 and B4, and the decoder's filters at the finest level.
SCALES = {"small": (1.0, 1.0, 16), "medium": (1.1, 1.2, 24), "large": (1.4, 1.8, 32)}
# MONAI's words: repeats, kernel, stride, expansion, channels in and out, squeeze-and-excitation. The sixth stack
# has stride 1 where the paper has 2, so that the deepest level lies at a sixteenth of the input as in the other
# architectures (the "output stride 16" of Chen et al., "Rethinking atrous convolution", 2017); the weights' shapes
# are the paper's.
STACKS = (
    "r1_k3_s11_e1_i32_o16_se0.25",
    "r2_k3_s22_e6_i16_o24_se0.25",
    "r2_k5_s22_e6_i24_o40_se0.25",
    "r3_k3_s22_e6_i40_o80_se0.25",
    "r3_k5_s11_e6_i80_o112_se0.25",
    "r4_k5_s11_e6_i112_o192_se0.25",
    "r1_k3_s11_e6_i192_o320_se0.25",
)
# The stacks whose outputs are levels: the last at each of the scales 1/2, 1/4, 1/8 and 1/16.
LEVELS = (0, 1, 2, 6)
# All widths are multiples of 8. Groups of channels, and not single ones, are normalised: squeeze-and-excitation
# reads channel means, which instance normalisation would set to nought.
NORM = ("group", {"num_groups": 8})


@dataclass(frozen=True)
class Family:
    """What one family of EfficientNets does differently from another.

    Attributes:
        stacks: In MONAI's words.
        norm: MONAI's name of a normalisation and its arguments.
        activation: Makes one.
    """

    stacks: tuple[str, ...]
    norm: tuple[str, dict[str, Any]]
    activation: Callable[[], nn.Module]


CLASSIC = Family(STACKS, NORM, partial(nn.SiLU, inplace=True))


class EfficientNetPyramid(PyramidEncoder):
    """A convolution block at full size, then the stacks of an EfficientNet on the image.

    Args:
        in_channels: One per modality.
        preset: Which of ``SCALES``.
        family: The paper's own, or one derived from it.
    """

    def __init__(self, in_channels: int, preset: str, family: Family = CLASSIC) -> None:
        # MONAI takes seconds to import: only who asks for this network pays for it.
        from monai.networks.nets.efficientnet import EfficientNet

        width, depth, base = SCALES[preset]
        body = EfficientNet(
            list(family.stacks),
            in_channels=in_channels,
            width_coefficient=width,
            depth_coefficient=depth,
            norm=family.norm,
            drop_connect_rate=0.0,
        )
        for module in body.modules():
            if hasattr(module, "_swish"):
                module._swish = family.activation()
        outputs = [body._blocks_args[index].output_filters for index in LEVELS]
        super().__init__(in_channels, [base, *outputs])
        self.full = ConvBlock(in_channels, base)
        self.stem = nn.Sequential(body._conv_stem_padding, body._conv_stem, body._bn0, body._swish)
        self.stacks = body._blocks

    def levels(self, x: Tensor) -> list[Tensor]:
        """Features of every level, finest first."""
        features = [self.full(x)]
        x = self.stem(x)
        for index, stack in enumerate(self.stacks):
            x = stack(x)
            if index in LEVELS:
                features.append(x)
        return features


def efficientnet_decoder(encoder: PyramidEncoder, preset: str, output: OutputConfig) -> Decoder:
    """The U-Net's decoder with widths of its own: EfficientNet's outputs are too narrow to decode with."""
    base = SCALES[preset][2]
    widths = [base * 2**level for level in reversed(range(DEPTH - 1))]
    return concatenating_decoder(encoder.widths[-2::-1], encoder.widths[-1], widths, output)
