"""What all sections of the configuration share: names, ranges and the frozen base."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Modality = Literal["flair", "t1", "t1ce", "t2"]
MODALITIES: tuple[str, ...] = ("flair", "t1", "t1ce", "t2")
REGIONS = ("WT", "TC", "ET")
STAGES = ("seg_warmup", "cls_head", "joint")

StageName = Literal["seg_warmup", "cls_head", "joint"]
Preset = Literal["tiny", "small", "medium", "large"]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """Base of every section: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")
