"""The section ``model``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from slicewise.config.base import Preset, Section

Architecture = Literal["unet", "efficientnet", "mednext"]


class ModelConfig(Section):
    """The multi-task network (``docs/networks.md``).

    Attributes:
        preset: How large.
        dropout: Behind the encoder: bottleneck, the decoder's two coarsest levels, head.
        architecture: Which blocks encoder and decoder are made of.
        deep_supervision: Region logits of the coarser decoder levels too, while training.
        encoder_weights: A safetensors file that the first stage's encoder starts from.
    """

    preset: Preset = "small"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    architecture: Architecture = "unet"
    deep_supervision: bool = False
    encoder_weights: Path | None = None
