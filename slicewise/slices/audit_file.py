"""``audit.json``: what the leakage audit looked at and found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from slicewise.errors import LeakageError, StoreError
from slicewise.files import read_json, write_json
from slicewise.slices.groups import Kind

FILE, FAILED = "audit.json", "audit-failed.json"
SHOWN = 3


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Member(_Record):
    """A study of a duplicate group: its side (or ``no side``) and what its label says."""

    study: str
    patient: str | None
    side: str
    label: Literal["tumour", "none", "unknown"]


class DuplicateGroup(_Record):
    """Studies that show the same thing or the same person under several names.

    Attributes:
        kinds: How they are linked: ``content``, ``near``, ``alias``.
        similarity: The lowest correlation among the links that join the group.
    """

    kinds: tuple[Kind, ...]
    similarity: float
    members: tuple[Member, ...]


class Disagreement(_Record):
    """Duplicates whose labels disagree."""

    studies: tuple[str, ...]
    reason: str


class Audit(_Record):
    """The content of ``audit.json``.

    Attributes:
        passed: Whether there are no problems.
        problems: Each names the studies and their sides.
        counts: What was looked at and found.
        thresholds: What counts as a near-duplicate.
        groups: All duplicates and aliases found, the largest groups first.
        disagreements: Duplicates whose labels disagree.
        excluded: Studies that are on no side → why.
    """

    format: Literal["slicewise-audit"] = "slicewise-audit"
    version: Literal[1] = 1
    passed: bool
    data_digest: str
    problems: tuple[str, ...]
    counts: dict[str, int]
    thresholds: dict[str, float]
    groups: tuple[DuplicateGroup, ...]
    disagreements: tuple[Disagreement, ...]
    excluded: dict[str, str]

    def require_passed(self) -> None:
        """Do nothing when there are no problems.

        Raises:
            LeakageError: Names the first problems.
        """
        if not self.passed:
            more = f"; and {len(self.problems) - SHOWN} more" if len(self.problems) > SHOWN else ""
            raise LeakageError(
                "; ".join(self.problems[:SHOWN]) + more, "split again, or move the named studies to one side"
            )


def write_audit(audit: Audit, folder: Path) -> None:
    """Write ``audit.json`` beside ``split.json``, or ``audit-failed.json`` for a split that is not kept."""
    write_json(folder / (FILE if audit.passed else FAILED), audit.model_dump(mode="json"))
    if audit.passed:
        (folder / FAILED).unlink(missing_ok=True)


def load_audit(folder: Path) -> Audit:
    """Read ``audit.json``.

    Raises:
        StoreError: Missing, damaged or of another version.
    """
    path = folder / FILE
    try:
        return Audit.model_validate(read_json(path))
    except (OSError, json.JSONDecodeError, ValidationError, UnicodeDecodeError) as error:
        raise StoreError(f"{path} is missing or damaged", "run 'slicewise split' again") from error
