"""The section ``model``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from slicewise.config.base import Preset, Section

Architecture = Literal["unet", "efficientnet", "efficientnet_lite", "mednext"]


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

    @field_validator("architecture")
    @classmethod
    def _has_preset(cls, architecture: Architecture, info: ValidationInfo) -> Architecture:
        # Fields are validated in their order: the preset, above, is known here unless it was wrong itself.
        preset = info.data.get("preset", "small")
        if architecture == "efficientnet_lite" and preset != "small":
            raise ValueError(f"efficientnet_lite has no preset {preset!r}: set model.preset to small")
        if architecture == "efficientnet" and preset == "tiny":
            raise ValueError("efficientnet has no preset 'tiny': set model.preset to small, medium or large")
        return architecture
