"""Torch as an engine: always there, on every device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, cast

import torch
from torch import Tensor

from slicewise.config import PredictorSettings
from slicewise.inference.engines.base import Plan
from slicewise.model.network import MultiTaskUNet


class TorchEngine:
    """Runs the network as it is.

    Args:
        network: In evaluation mode, on its device.
        plan: Precision, and the layout of images.
        settings: What CUDA may do; nothing of it applies on a CPU.
    """

    def __init__(self, network: MultiTaskUNet, plan: Plan, settings: PredictorSettings) -> None:
        self._device = next(network.parameters()).device
        cuda = self._device.type == "cuda"
        self._layout = torch.channels_last if plan.channels_last or cuda else torch.contiguous_format
        self._half = torch.float16 if cuda and settings.amp else torch.bfloat16 if plan.dtype == "bf16" else None
        self._encoder, self._decoder = _compiled(network, settings) if cuda else (network.encoder, network.decoder)

    def features(self, image: Tensor) -> list[Tensor]:
        """See ``Engine``."""
        with self._autocast():
            features = self._encoder(image.contiguous(memory_format=self._layout))
        return [level.float() for level in features]

    def regions(self, features: Sequence[Tensor]) -> Tensor:
        """See ``Engine``."""
        with self._autocast():
            return cast("Tensor", self._decoder(list(features))).float()

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self._device.type, self._half, enabled=self._half is not None)


def _compiled(network: MultiTaskUNet, settings: PredictorSettings) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Encoder and decoder for CUDA. Not tried on a CPU, where compiling takes minutes (``docs/decisions``)."""
    if not (settings.compile or settings.cuda_graphs):
        return network.encoder, network.decoder
    mode = "reduce-overhead" if settings.cuda_graphs else "default"
    return torch.compile(network.encoder, mode=mode), torch.compile(network.decoder, mode=mode)
