"""What an engine is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor

# How far an engine's answers may be from those of torch in float32: probabilities, and the share of a mask's pixels.
PROBABILITY_TOLERANCE = 1e-3
MASK_TOLERANCE = 1e-3


class Engine(Protocol):
    """Encoder and decoder, apart, so that the decoder can be left out or run for some slices only.

    The head is not an engine's business: it is a thousandth of the work, and Grad-CAM differentiates it.
    """

    def features(self, image: Tensor) -> list[Tensor]:
        """Encoder features, finest first, float32, of ``[N, C, size, size]``."""
        ...

    def regions(self, features: Sequence[Tensor]) -> Tensor:
        """Region logits ``[N, 3, size, size]`` float32 of encoder features."""
        ...


@dataclass(frozen=True)
class Plan:
    """One way of running the network.

    Attributes:
        engine: Which engine.
        dtype: In which precision it multiplies.
        channels_last: Torch's memory layout.
    """

    engine: Literal["torch", "openvino"] = "torch"
    dtype: Literal["fp32", "bf16"] = "fp32"
    channels_last: bool = False

    @property
    def name(self) -> str:
        """E.g. ``torch-fp32-channels_last``."""
        return "-".join([self.engine, self.dtype, *(["channels_last"] if self.channels_last else [])])
