"""The part ``serve.canary``: how carefully a new model takes the place of the former one."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from slicewise.config.base import Count, Section

Percent = Annotated[int, Field(ge=1, le=100)]
Share = Annotated[float, Field(ge=0, le=1)]


class CanaryConfig(Section):
    """The steps of a canary and the limits that hold at each.

    Attributes:
        steps: Shares of the traffic in per cent, rising; the promotion to 100 follows by itself. Empty: a new model
            takes the former one's place at once.
        hold_s: How long one step is watched, in seconds; its probes are spread over that time.
        requests: Slices that both versions are asked for at each step.
        max_error_rate: Share of the new version's requests that may fail.
        max_latency_ratio: Median latency of the new version over that of the former, at most.
        min_agreement: Share of the slices that both versions must give the same label.
        promote: Whether a canary that has passed all steps becomes the served version by itself.
    """

    steps: tuple[Percent, ...] = (10, 25, 50)
    hold_s: Annotated[float, Field(ge=0)] = 60.0
    requests: Count = 16
    max_error_rate: Share = 0.0
    max_latency_ratio: Annotated[float, Field(ge=1)] = 2.0
    min_agreement: Share = 0.9
    promote: bool = True

    @model_validator(mode="after")
    def _rising(self) -> CanaryConfig:
        if list(self.steps) != sorted(set(self.steps)):
            raise ValueError("steps must rise, e.g. [10, 25, 50]")
        return self
