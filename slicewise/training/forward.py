"""What one training step computes of a batch: the part that several processes or a compiler wrap."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from slicewise.config import TrainConfig
from slicewise.config.train import StageConfig
from slicewise.model.network import MultiTaskUNet
from slicewise.training.ranks import Ranks

Outputs = tuple[Tensor, ...]


class Forward(nn.Module):
    """The network as a stage uses it.

    Args:
        network: Shared with whoever gave it.
        stage: Whether the encoder learns and the decoder runs.
    """

    def __init__(self, network: MultiTaskUNet, stage: StageConfig) -> None:
        super().__init__()
        self.network = network
        self.segment = "segment" in stage.tasks
        self.frozen = stage.encoder_lr_factor == 0

    def forward(self, image: Tensor) -> Outputs:
        """``[N, C, H, W]`` to tumour logits ``[N]`` and, where the decoder runs, region logits, finest first."""
        if self.frozen:
            with torch.no_grad():
                features = self.network.encoder(image)
        else:
            features = self.network.encoder(image)
        logits = self.network.from_features(features, segment=self.segment)
        if logits.regions is None:
            return (logits.tumour,)
        return (logits.tumour, logits.regions, *(logits.coarse or ()))


def make_forward(network: MultiTaskUNet, stage: StageConfig, train: TrainConfig, ranks: Ranks) -> nn.Module:
    """``Forward``, spread over the processes and compiled as configured."""
    forward: nn.Module = Forward(network, stage)
    if train.compile:
        forward = cast("nn.Module", torch.compile(forward, backend=train.compile))
    if ranks.world > 1:
        devices = [ranks.device] if ranks.device.type == "cuda" else None
        forward = DistributedDataParallel(forward, device_ids=devices, broadcast_buffers=False)
    return forward
