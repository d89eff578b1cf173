"""The plain file: one JSON object a line, written whatever else is switched on."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from slicewise.files import atomic_path
from slicewise.training.tracking.base import Tracker, TrackingError, finite

logger = logging.getLogger(__name__)
METRICS = "metrics.jsonl"
KINDS = ("step", "epoch")


class PlainTracker(Tracker):
    """Appends to ``metrics.jsonl``; every line is handed to the system at once, so that a kill loses none.

    Args:
        folder: Where the file lies.
        resume_step: Lines of later optimiser steps are dropped: they will come again.
        resume_epoch: Lines of later epochs are dropped.

    Raises:
        TrackingError: The file cannot be read or written.
    """

    def __init__(self, folder: Path, resume_step: int = 0, resume_epoch: int = 0) -> None:
        self.path = folder / METRICS
        limits = {"step": resume_step, "epoch": resume_epoch}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            cut(self.path, limits)
            self._file = self.path.open("a", encoding="utf-8", buffering=1, newline="\n")
        except OSError as error:
            raise self._refusal(error) from error

    def step(self, step: int, figures: Mapping[str, float]) -> None:
        """Write one line.

        Raises:
            TrackingError: The disk is full or gone.
        """
        self._write("step", step, figures)

    def epoch(self, epoch: int, figures: Mapping[str, float | None]) -> None:
        """Write one line and see that the file is on the disk, as the checkpoint that follows will be.

        Raises:
            TrackingError: The disk is full or gone.
        """
        self._write("epoch", epoch, figures)
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._refusal(error) from error

    def close(self, status: str) -> None:
        """Close the file; every line is there already.

        Raises:
            TrackingError: The last line could not be written.
        """
        try:
            self._file.close()
        except OSError as error:
            raise self._refusal(error) from error

    def _write(self, kind: str, number: int, figures: Mapping[str, float | None]) -> None:
        known = finite(figures)
        rest = {key: known.get(key) for key in figures if key not in ("kind", kind)}
        line = {"kind": kind, kind: number, **rest}
        try:
            self._file.write(json.dumps(line, allow_nan=False) + "\n")
        except OSError as error:
            raise self._refusal(error) from error

    def _refusal(self, error: OSError) -> TrackingError:
        reason = error.strerror or str(error)
        return TrackingError(f"cannot write {self.path}: {reason}", "free space or mend the disk, then run it again")


def cut(path: Path, limits: Mapping[str, int]) -> None:
    """Drop the lines beyond ``limits`` and what a kill has left half-written, atomically.

    Raises:
        OSError: The file cannot be read or written.
    """
    if not path.exists():
        return
    with path.open("rb") as source, atomic_path(path) as temporary, temporary.open("wb") as target:
        for line, record in parsed(source, path):
            if record[record["kind"]] <= limits[record["kind"]]:
                target.write(line.rstrip(b"\r\n") + b"\n")


def parsed(lines: Iterable[bytes], path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Every line that is a record, and the record; others are left out and, unless half a line, told."""
    for number, line in enumerate(lines, start=1):
        record = _record(line)
        if record is not None:
            yield line, record
        elif line.endswith(b"\n"):
            logger.warning("%s: line %d is damaged and left out", path, number)


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    if not isinstance(record, dict) or record.get("kind") not in KINDS:
        return None
    number = record.get(record["kind"])
    return record if isinstance(number, int) and not isinstance(number, bool) else None
