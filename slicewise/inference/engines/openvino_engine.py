"""OpenVINO as an engine: the faster one on CPUs (``docs/decisions/0021-cpu-engine.md``); an optional package."""

from __future__ import annotations

import copy
import sys
import threading
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, cast

import torch
from torch import Tensor, nn

from slicewise.inference.engines.base import Plan
from slicewise.model.network import MultiTaskUNet

PRECISIONS = {"fp32": "f32", "bf16": "bf16"}


class OpenVinoEngine:
    """Encoder and decoder as two compiled graphs, for any number of slices of one size.

    Args:
        network: In evaluation mode, on the CPU.
        plan: Precision.
        size: Height and width of the network's input.
        threads: CPU threads.

    Attributes:
        mask_widths: Channels of each mask that ``masked_regions`` takes.

    Raises:
        ImportError: The package is not installed.
    """

    def __init__(self, network: MultiTaskUNet, plan: Plan, size: int, threads: int) -> None:
        image = torch.zeros(2, network.encoder.in_channels, size, size)
        encoder, decoder = _Encoder(network), _MaskedDecoder(network)
        with torch.inference_mode():
            features = encoder(image)
            self.mask_widths = decoder.find_widths(features)
        self._ones = [torch.ones(1, width, 1, 1) for width in self.mask_widths]
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": PRECISIONS[plan.dtype],
            # Workers side by side would all bind their threads to the same cores.
            "ENABLE_CPU_PINNING": False,
        }
        core = _import_quietly().Core()
        self._encoder = _Graph(core, encoder, (image,), settings)
        self._decoder = _Graph(core, decoder, (*features, *self._ones), settings)

    def features(self, image: Tensor) -> list[Tensor]:
        """See ``Engine``."""
        return self._encoder(image)

    def regions(self, features: Sequence[Tensor]) -> Tensor:
        """See ``Engine``."""
        return self.masked_regions(features, self._ones)

    def masked_regions(self, features: Sequence[Tensor], masks: Sequence[Tensor]) -> Tensor:
        """Region logits under one sample's dropout.

        Args:
            features: The encoder's, finest first.
            masks: ``[1, C, 1, 1]`` each, of the bottleneck and of the decoder's levels that have dropout.
        """
        return self._decoder(*features, *masks)[0]


def _import_quietly() -> Any:
    """The package without its reporting.

    Importing it tells its makers over the network, from processes of its own and with a file in the user's home; a
    service for patients' scans tells nobody. Where the reporting package is missing, OpenVINO does without.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


class _Graph:
    """A compiled module; each thread has its own buffers."""

    def __init__(self, core: Any, module: nn.Module, example: tuple[Tensor, ...], settings: dict[str, Any]) -> None:
        openvino = _import_quietly()
        shapes = [openvino.PartialShape([-1 if len(x) > 1 else 1, *x.shape[1:]]) for x in example]
        with warnings.catch_warnings():
            # Layers check their input's shape in Python; the graph is of one shape but for the number of slices.
            warnings.filterwarnings("ignore", message="Converting a tensor to a Python")
            model = openvino.convert_model(module.eval(), example_input=example, input=shapes)
        self._compiled = core.compile_model(model, "CPU", settings)
        self._own = threading.local()

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        request = getattr(self._own, "request", None)
        if request is None:
            request = self._own.request = self._compiled.create_infer_request()
        # Inputs are read where they are; outputs are copied, as the next call overwrites the request's buffers.
        arrays = [tensor.detach().contiguous().numpy() for tensor in inputs]
        found = request.infer(arrays, share_inputs=True)
        return [torch.from_numpy(found[at]) for at in range(len(found))]


class _Encoder(nn.Module):
    def __init__(self, network: MultiTaskUNet) -> None:
        super().__init__()
        self.encoder = network.encoder

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        # Not its ``forward``, which asks for the shape: a question that no graph can hold.
        return tuple(self.encoder.levels(image))


class _MaskedDecoder(nn.Module):
    """The bottleneck's dropout and the decoder, every dropout a product with a mask that is given."""

    def __init__(self, network: MultiTaskUNet) -> None:
        super().__init__()
        self.depth = len(network.encoder.widths)
        self.decoder = copy.deepcopy(network.decoder)
        self.bottleneck = _masked(network.dropout)
        self.decoder.dropouts = nn.ModuleList(_masked(dropout) for dropout in self.decoder.dropouts)
        places = [self.bottleneck, *self.decoder.dropouts]
        self._masks = [place for place in places if isinstance(place, _Mask)]

    def forward(self, *inputs: Tensor) -> Tensor:
        for module, mask in zip(self._masks, inputs[self.depth :], strict=True):
            module.mask = mask
        features = list(inputs[: self.depth])
        return cast("Tensor", self.decoder([*features[:-1], self.bottleneck(features[-1])]))

    def find_widths(self, features: Sequence[Tensor]) -> tuple[int, ...]:
        """Channels of each mask."""
        self(*features, *(torch.ones(1) for _ in self._masks))
        return tuple(module.width for module in self._masks)


class _Mask(nn.Module):
    mask: Tensor
    width: int

    def forward(self, x: Tensor) -> Tensor:
        self.width = x.shape[1]
        return x * self.mask


def _masked(dropout: nn.Module) -> nn.Module:
    return _Mask() if isinstance(dropout, nn.Dropout2d) and dropout.p > 0 else nn.Identity()


def is_installed() -> bool:
    """Whether the package is there."""
    return find_spec("openvino") is not None
