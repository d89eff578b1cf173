"""The slices of a study in the store's index, kept in columns.

A store of 1,000 studies has 155,000 slices: as columns they are read and checked in a fraction of the time that one
record each would take.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar, overload

from pydantic import ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]
SquareMillimetres = Annotated[float, Field(gt=0)]
Pixel = Annotated[int, Field(gt=-(2**31), lt=2**31)]
Side = Annotated[int, Field(gt=0, lt=2**31)]
Box = tuple[Pixel, Pixel, Side, Side]


@dataclass(frozen=True, slots=True)
class SliceEntry:
    """One slice.

    Attributes:
        z: Its index in the study, along the plane that was cut.
        tumour: Whether it shows tumour; None where that is unknown or too little to call.
        selected: Whether it takes part in training.
        foreground: Share of pixels that are head or brain.
        pixel_mm2: Area of one pixel of the stored plane in mm².
        box: Top, left, height and width of the stored plane in the slice's own pixels; may reach beyond its frame.
    """

    z: int
    tumour: bool | None
    selected: bool
    foreground: float
    pixel_mm2: float
    box: tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class SliceTable(Sequence[SliceEntry]):
    """The slices of a study in columns, all of one length, ``z`` rising; as a sequence it gives ``SliceEntry``."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", allow_inf_nan=False)

    z: Annotated[tuple[Annotated[int, Field(ge=0, lt=2**31)], ...], Field(min_length=1)]
    tumour: tuple[bool | None, ...]
    selected: tuple[bool, ...]
    foreground: tuple[Share, ...]
    pixel_mm2: tuple[SquareMillimetres, ...]
    box: tuple[Box, ...]

    def __post_init__(self) -> None:
        columns = (self.tumour, self.selected, self.foreground, self.pixel_mm2, self.box)
        if any(len(column) != len(self.z) for column in columns):
            raise ValueError("the columns of the slices differ in length")
        if list(self.z) != sorted(set(self.z)):
            raise ValueError("z must rise")

    @classmethod
    def of(cls, entries: Iterable[SliceEntry]) -> SliceTable:
        """The table of some slices."""
        return cls(**columns(entries))

    def __len__(self) -> int:
        return len(self.z)

    @overload
    def __getitem__(self, at: int) -> SliceEntry: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[SliceEntry, ...]: ...
    def __getitem__(self, at: int | slice) -> SliceEntry | tuple[SliceEntry, ...]:
        """One slice, or some."""
        if isinstance(at, slice):
            return tuple(self[row] for row in range(len(self))[at])
        return SliceEntry(
            self.z[at], self.tumour[at], self.selected[at], self.foreground[at], self.pixel_mm2[at], self.box[at]
        )

    def __iter__(self) -> Iterator[SliceEntry]:
        return map(SliceEntry, self.z, self.tumour, self.selected, self.foreground, self.pixel_mm2, self.box)


def columns(entries: Iterable[SliceEntry]) -> dict[str, tuple[Any, ...]]:
    """Some slices, one tuple per field."""
    rows = list(entries)
    return {field.name: tuple(getattr(row, field.name) for row in rows) for field in fields(SliceEntry)}
