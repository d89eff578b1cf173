"""Which ways of running a network there are on this machine, and how each is set up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from slicewise.config import PredictorSettings
from slicewise.cpus import has_bf16
from slicewise.inference.engines.base import Engine, Plan
from slicewise.inference.engines.openvino_engine import OpenVinoEngine, is_installed
from slicewise.inference.engines.torch_engine import TorchEngine
from slicewise.model.device import place_network
from slicewise.model.network import MultiTaskUNet


@dataclass(frozen=True)
class Site:
    """A network and the machine it is to run on.

    Attributes:
        network: In evaluation mode, on its device.
        device: Where.
        size: Height and width of its input.
        threads: CPU threads.
    """

    network: MultiTaskUNet
    device: torch.device
    size: int
    threads: int


def plans(settings: PredictorSettings, device: torch.device) -> list[Plan]:
    """The plans that the settings leave open, torch in float32 first where that is one of them.

    Args:
        settings: What may be chosen.
        device: CUDA has one plan.
    """
    if device.type != "cpu":
        return [Plan(channels_last=True)]
    found = []
    for dtype in _dtypes(settings):
        if settings.engine != "openvino" or not _has_openvino(settings):
            layouts = (False, True) if settings.channels_last == "auto" else (settings.channels_last,)
            found += [Plan("torch", dtype, layout) for layout in layouts]
        if settings.engine != "torch" and _has_openvino(settings):
            found.append(Plan("openvino", dtype))
    return found


def build_engine(site: Site, plan: Plan, settings: PredictorSettings) -> Engine:
    """Set up an engine; the network's weights may change their layout, and nothing else.

    Raises:
        ImportError: The engine's package is not installed.
        RuntimeError: It cannot hold this network.
    """
    layout = "channels_last" if plan.channels_last else "auto"
    network = place_network(site.network, site.device, layout)
    if plan.engine == "openvino":
        return OpenVinoEngine(network, plan, site.size, site.threads)
    return TorchEngine(network, plan, settings)


def _dtypes(settings: PredictorSettings) -> tuple[Literal["fp32", "bf16"], ...]:
    if settings.dtype != "auto":
        return (settings.dtype,)
    return ("fp32", "bf16") if has_bf16() else ("fp32",)


def _has_openvino(settings: PredictorSettings) -> bool:
    return settings.engine != "torch" and is_installed()
