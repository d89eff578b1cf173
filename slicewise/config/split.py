"""The section ``split``: train, validation and test by patient group."""

from __future__ import annotations

from pydantic import Field, model_validator

from slicewise.config.base import Section, Share


class SplitConfig(Section):
    """Train, validation and test, by patient group."""

    fractions: tuple[Share, Share, Share] = (0.70, 0.15, 0.15)
    near_duplicate_correlation: Share = 0.985
    aliases: dict[str, tuple[str, ...]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _sum_to_one(self) -> SplitConfig:
        if abs(sum(self.fractions) - 1.0) > 1e-6 or min(self.fractions) <= 0:
            raise ValueError("fractions must be three positive shares that sum to 1")
        return self
