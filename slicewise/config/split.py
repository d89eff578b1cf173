"""The section ``split``: train, validation and test by patient group."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from slicewise.config.base import Section, Share


class SplitConfig(Section):
    """Train, validation and test, by patient group.

    Attributes:
        method: ``stratified`` deals the groups of each source and tumour presence in exact shares; ``hash`` draws
            each group's side from the seed and the group's name alone, so that it never changes.
        fractions: The sides' shares of the groups, where there are no folds.
        folds: Number of folds; test is the fold ``fold``, validation the next one, the others train.
        fold: Which fold is test, from 0.
        previous: A ``split.json`` (or its folder) whose assignments stay; only new groups are dealt.
        imported: A split made elsewhere: JSON ``{"train": [ids], "val": […], "test": […]}`` or CSV
            ``study_id,side``; ids of studies or patients.
        near_duplicate_bits: Single images whose 144-bit hashes differ in at most so many bits are compared.
        near_duplicate_correlation: They are near-duplicates when, registered, they correlate at least so much.
        on_label_conflict: What to do where duplicates have labels that disagree: leave them out of all sides
            (``drop``), fail, or only warn.
        aliases: A patient's name → further names of the same person.
    """

    method: Literal["stratified", "hash"] = "stratified"
    fractions: tuple[Share, Share, Share] = (0.70, 0.15, 0.15)
    folds: Annotated[int, Field(ge=3, le=100)] | None = None
    fold: Annotated[int, Field(ge=0)] = 0
    previous: Path | None = None
    imported: Path | None = None
    near_duplicate_bits: Annotated[int, Field(ge=0, le=60)] = 32
    near_duplicate_correlation: Share = 0.92
    on_label_conflict: Literal["drop", "fail", "warn"] = "drop"
    aliases: dict[str, tuple[str, ...]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _agree(self) -> SplitConfig:
        if abs(sum(self.fractions) - 1.0) > 1e-6 or min(self.fractions) <= 0:
            raise ValueError("fractions must be three positive shares that sum to 1")
        if self.fold >= (self.folds or 1):
            raise ValueError(f"fold {self.fold} needs folds above {self.fold}: folds count from 0")
        if self.imported and (self.previous or self.folds):
            raise ValueError("imported says where every study goes: leave out previous and folds")
        return self
