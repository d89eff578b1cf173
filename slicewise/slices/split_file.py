"""``split.json``: which study is on which side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from slicewise.errors import StoreError
from slicewise.files import read_json

FILE = "split.json"
Side = Literal["train", "val", "test"]
SIDES: tuple[Side, ...] = ("train", "val", "test")


class Split(BaseModel):
    """The content of ``split.json``.

    Attributes:
        method: How it was made.
        groups: Group name → keys of its studies.
        train: Keys of the studies to learn from.
        val: Keys for early stopping, calibration and thresholds.
        test: Keys that are judged once, at the end.
        excluded: Keys that are on no side → why.
        folds: The names of each fold's groups, the same for every ``fold``; empty where there are no folds.
        fold: Which fold is test.
        audit: The audit's counts; all it found is in ``audit.json``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["slicewise-split"] = "slicewise-split"
    version: Literal[1, 2] = 2
    method: Literal["stratified", "hash", "imported"] = "stratified"
    seed: int
    data_digest: str
    groups: dict[str, tuple[str, ...]]
    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]
    excluded: dict[str, str] = {}
    folds: tuple[tuple[str, ...], ...] = ()
    fold: int | None = None
    audit: dict[str, int] = {}

    def side(self, name: Side) -> tuple[str, ...]:
        """The study keys of one side."""
        return {"train": self.train, "val": self.val, "test": self.test}[name]


def load_split(folder: Path) -> Split:
    """Read ``split.json`` from ``folder``; the file itself is taken too.

    Raises:
        StoreError: Missing, damaged or of another version.
    """
    path = folder if folder.is_file() else folder / FILE
    try:
        return Split.model_validate(read_json(path))
    except (OSError, json.JSONDecodeError, ValidationError, UnicodeDecodeError) as error:
        raise StoreError(f"{path} is missing or damaged", "run 'slicewise split' again") from error
