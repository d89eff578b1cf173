"""The section ``train.augment``: random changes of a training batch."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from slicewise.config.base import Section, Share


class AugmentConfig(Section):
    """Random changes of a training batch."""

    flip: Share = 0.5
    rotate_degrees: Annotated[float, Field(ge=0, le=180)] = 12.0
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.12
    intensity: Annotated[float, Field(ge=0, lt=1)] = 0.15
    noise: Annotated[float, Field(ge=0, le=1)] = 0.05
    modality_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.25
