"""The section ``download``: how sources become a dataset folder."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from slicewise.config.base import Count, Positive, Section, Share


class PhantomConfig(Section):
    """Synthetic studies made by the source ``phantom``."""

    n_studies: Annotated[int, Field(ge=3)] = 40
    shape: tuple[Count, Count, Count] = (96, 96, 40)
    spacing_mm: tuple[Positive, Positive, Positive] = (2.0, 2.0, 3.5)
    healthy_share: Share = 0.25


class DownloadConfig(Section):
    """How sources become a dataset folder."""

    phantom: PhantomConfig = PhantomConfig()
    max_studies: Count | None = None
