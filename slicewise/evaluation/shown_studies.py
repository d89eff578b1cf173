"""The test studies as the page shows them: anchors, order, and which of them are worth a look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from slicewise.config import REGIONS
from slicewise.evaluation.words import number

Record = Mapping[str, Any]
# A whole tumour of which less than half is found the way the reference has it is worth a look.
LOW_DICE = 0.5


@dataclass(frozen=True)
class Study:
    """One row of the table, and one page of the pictures.

    Attributes:
        record: Of ``metrics.json``.
        row: Anchor of its row.
        pictures: Anchor of its pictures; that of the row where there are none.
        flags: Why it is worth a look.
    """

    record: Record
    row: str
    pictures: str
    flags: tuple[str, ...] = field(default=())

    @property
    def name(self) -> str:
        """Its key."""
        return str(self.record["study"])

    @property
    def dice(self) -> float | None:
        """Dice of the whole tumour, or of the first region that has one."""
        values = (self.region(name).get("dice") for name in REGIONS)
        return next((float(value) for value in values if value is not None), None)

    @property
    def probability(self) -> float | None:
        """Tumour probability of its most suspicious slice."""
        value = self.record.get("tumour_probability")
        return None if value is None else float(value)

    @property
    def true(self) -> bool | None:
        """Whether it shows tumour; None where unknown."""
        value = self.record.get("tumour_true")
        return None if value is None else bool(value)

    def region(self, name: str) -> Record:
        """A region's figures."""
        found: Record = self.record.get(name) or {}
        return found

    @property
    def uncertainty(self) -> float | None:
        """Mean entropy where the model draws the whole tumour, in nats."""
        value = self.record.get("mean_uncertainty")
        return None if value is None else float(value)

    @property
    def ood(self) -> float | None:
        """How foreign it is to the model."""
        value = self.record.get("ood_score")
        return None if value is None else float(value)

    @property
    def tip(self) -> str:
        """What a dot says of it."""
        parts = [self.name]
        parts += [f"{name} Dice {number(self.region(name)['dice'], 2)}" for name in REGIONS if self.has(name, "dice")]
        parts += [] if self.probability is None else [f"p(tumour) {number(self.probability, 2)}"]
        return " · ".join(parts)

    def has(self, region: str, key: str) -> bool:
        """Whether a region's figure is defined."""
        return self.region(region).get(key) is not None


def list_studies(metrics: Mapping[str, Any]) -> list[Study]:
    """The test studies in the order of ``metrics.json``; anchors are numbers, so that no name can break a link."""
    threshold = metrics["classification"]["slice"].get("threshold")
    return [
        Study(
            record=record,
            row=f"row-{at}",
            pictures=f"study-{at}" if record.get("pictures") else f"row-{at}",
            flags=tuple(_flags(record, threshold)),
        )
        for at, record in enumerate(metrics["studies"])
    ]


def worst_first(studies: Sequence[Study]) -> list[Study]:
    """Flagged ones first, then by Dice, the lowest first; those without a Dice last."""
    return sorted(studies, key=lambda s: (not s.flags, s.dice if s.dice is not None else 2.0, s.name))


def _flags(record: Record, threshold: float | None) -> list[str]:
    flags = []
    probability, true = record.get("tumour_probability"), record.get("tumour_true")
    if probability is not None and true is not None and threshold is not None:
        said = probability >= threshold
        if said and not true:
            flags.append("false alarm")
        if true and not said:
            flags.append("missed tumour")
    for name in REGIONS:
        region = record.get(name) or {}
        if region.get("false_positive"):
            flags.append(f"{name} where there is none")
    dice = (record.get("WT") or {}).get("dice")
    if dice is not None and dice < LOW_DICE:
        flags.append(f"WT Dice below {LOW_DICE:g}")
    return flags
