"""What all trackers share."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slicewise.errors import ConfigError, TrainingError

FINISHED = "finished"
FAILED = "failed"
KILLED = "killed"


class TrackingError(TrainingError):
    """The plain file of learning curves cannot be written or read."""


class Tracker(ABC):
    """Takes a stage's figures as they come."""

    @abstractmethod
    def step(self, step: int, figures: Mapping[str, float]) -> None:
        """Take the figures of an optimiser step.

        Args:
            step: Optimiser steps finished in the whole stage, this one included.
            figures: By name; may hold NaN and infinities.
        """

    @abstractmethod
    def epoch(self, epoch: int, figures: Mapping[str, float | None]) -> None:
        """Take the figures of an epoch.

        Args:
            epoch: Epochs finished, this one included.
            figures: By name; None where a figure is not defined.
        """

    @abstractmethod
    def close(self, status: str) -> None:
        """Write what is left.

        Args:
            status: ``finished``, ``failed`` or ``killed``.
        """


@dataclass(frozen=True)
class Place:
    """Where and whence a tracker goes on.

    Attributes:
        folder: The stage's tracking folder.
        name: What the run is called.
        provenance: Stored beside the figures.
        resume_step: Optimiser steps finished by the checkpoint that the stage goes on from; 0 at its start.
        resume_epoch: Epochs finished by it.
    """

    folder: Path
    name: str
    provenance: Mapping[str, Any]
    resume_step: int = 0
    resume_epoch: int = 0

    @property
    def resumed(self) -> bool:
        """Whether the stage goes on; else its run begins anew."""
        return bool(self.resume_step or self.resume_epoch)


def finite(figures: Mapping[str, float | None], prefix: str = "") -> dict[str, float]:
    """The figures that a curve can show, under ``prefix`` + name."""
    known = {key: value for key, value in figures.items() if value is not None}
    return {prefix + key: float(value) for key, value in known.items() if math.isfinite(value)}


def missing(tracker: str) -> ConfigError:
    """The error of a tracker whose package is not installed."""
    cure = f"pip install 'slicewise[tracking]', or leave {tracker} out of train.track.trackers"
    return ConfigError(f"the tracker {tracker} needs a package that is not installed", cure)
