"""The multi-task network: one encoder, a decoder for WT/TC/ET, a classification head on the bottleneck.

All architectures are U-shaped and normalise within a slice or by constants, never over a batch: the answer for one
slice stays independent of what else is in its batch, which dynamic batching in serving depends on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from slicewise.config import REGIONS, Architecture, ModelConfig
from slicewise.model.blocks import DEPTH, Decoder, Head, OutputConfig, PyramidEncoder
from slicewise.model.efficientnet import EfficientNetPyramid, efficientnet_decoder
from slicewise.model.efficientnet_lite import EfficientNetLitePyramid
from slicewise.model.mednext import mednext_decoder, mednext_encoder
from slicewise.model.transfer import load_encoder
from slicewise.model.unet import BASE_FILTERS, unet_decoder, unet_encoder

__all__ = ["BASE_FILTERS", "DEPTH", "Logits", "MultiTaskUNet", "build_network", "count_parameters"]

_EncoderMaker = Callable[[int, str], PyramidEncoder]
_DecoderMaker = Callable[[PyramidEncoder, str, OutputConfig], Decoder]
_PARTS: dict[Architecture, tuple[_EncoderMaker, _DecoderMaker]] = {
    "unet": (unet_encoder, unet_decoder),
    "efficientnet": (EfficientNetPyramid, efficientnet_decoder),
    "efficientnet_lite": (EfficientNetLitePyramid, efficientnet_decoder),
    "mednext": (mednext_encoder, mednext_decoder),
}


@dataclass(frozen=True)
class Logits:
    """Raw outputs.

    Attributes:
        tumour: ``[N]`` logit of "this slice shows tumour".
        regions: ``[N, 3, H, W]`` logits of WT, TC, ET, or None when the decoder was not run.
        coarse: The same at half, quarter and eighth size, while training with deep supervision.
    """

    tumour: Tensor
    regions: Tensor | None
    coarse: tuple[Tensor, ...] | None = None


class MultiTaskUNet(nn.Module):
    """Tumour presence and extent from one encoder pass.

    Args:
        in_channels: One per modality.
        config: Architecture, preset, dropout, deep supervision.
    """

    def __init__(self, in_channels: int, config: ModelConfig) -> None:
        super().__init__()
        make_encoder, make_decoder = _PARTS[config.architecture]
        self.encoder = make_encoder(in_channels, config.preset)
        # On the bottleneck, so that MC samples of both outputs vary while the encoder runs once.
        self.dropout = nn.Dropout2d(config.dropout)
        output = OutputConfig(len(REGIONS), config.dropout, config.deep_supervision)
        self.decoder = make_decoder(self.encoder, config.preset, output)
        self.head = Head(self.encoder.widths[-1], config.dropout)
        self.deep_supervision = config.deep_supervision

    def forward(self, x: Tensor, *, segment: bool = True) -> Logits:
        """One pass.

        Args:
            x: ``[N, C, H, W]`` z-scores; H and W multiples of 16, at least 32.
            segment: Whether to run the decoder.

        Raises:
            InputError: An image of another shape.
        """
        return self.from_features(self.encoder(x), segment=segment)

    def from_features(self, features: list[Tensor], *, segment: bool = True) -> Logits:
        """Head and decoder on features that ``encoder`` has made."""
        dropped = [*features[:-1], self.dropout(features[-1])]
        tumour = self.head(dropped[-1])
        if not segment:
            return Logits(tumour, None)
        if self.deep_supervision and self.training:
            regions, *coarse = self.decoder.scales(dropped)
            return Logits(tumour, regions, tuple(coarse))
        return Logits(tumour, self.decoder(dropped))


def build_network(in_channels: int, config: ModelConfig, *, transfer: bool = False) -> MultiTaskUNet:
    """The network of a configuration.

    Args:
        in_channels: One per modality.
        config: The section ``model``.
        transfer: Whether its encoder starts from ``config.encoder_weights``, where that is given. Only the first
            stage of training wants it: whoever loads trained weights has no use for the file.

    Raises:
        ConfigError: The encoder's weights are missing, damaged, or of another network.
    """
    network = MultiTaskUNet(in_channels, config)
    if transfer and config.encoder_weights is not None:
        load_encoder(network.encoder, config.encoder_weights)
    return network


def count_parameters(network: nn.Module) -> int:
    """How many weights a network has."""
    return sum(parameter.numel() for parameter in network.parameters())
