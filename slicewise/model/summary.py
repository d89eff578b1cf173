"""How large a network is, and how much it computes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from slicewise.config import ModelConfig
from slicewise.model.network import build_network, count_parameters


@dataclass(frozen=True)
class PartSummary:
    """One part of a network.

    Attributes:
        parameters: Weights.
        macs: Multiply-accumulate operations of convolutions and linear layers for one slice.
    """

    parameters: int
    macs: int


def summary(config: ModelConfig, in_channels: int, size: tuple[int, int]) -> dict[str, PartSummary]:
    """Parameters and MACs of ``encoder``, ``decoder``, ``head`` and ``total``.

    Nothing is computed: shapes alone pass through the network. Normalisation, activations and the coarser outputs
    of deep supervision, which only training computes, count no MACs.

    Args:
        config: The section ``model``.
        in_channels: One per modality.
        size: Height and width of one slice.

    Raises:
        InputError: The network cannot take that size.
    """
    with torch.device("meta"):
        network = build_network(in_channels, config).eval()
        image = torch.empty(1, in_channels, *size)
    parts: dict[str, PartSummary] = {}
    with torch.no_grad():
        features = network.encoder(image)
        parts["encoder"] = PartSummary(count_parameters(network.encoder), _macs(network.encoder, image))
        parts["decoder"] = PartSummary(count_parameters(network.decoder), _macs(network.decoder, features))
        parts["head"] = PartSummary(count_parameters(network.head), _macs(network.head, features[-1]))
    parts["total"] = PartSummary(count_parameters(network), sum(part.macs for part in parts.values()))
    return parts


def _macs(part: torch.nn.Module, given: torch.Tensor | list[torch.Tensor]) -> int:
    with FlopCounterMode(display=False) as counter:
        part(given)
    # torch counts a multiplication and an addition as two operations.
    return int(counter.get_total_flops()) // 2
