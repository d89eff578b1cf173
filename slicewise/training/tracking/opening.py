"""Opening a stage's trackers."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from slicewise.config.track import TrackConfig, TrackerName
from slicewise.training.tracking.base import FAILED, FINISHED, KILLED, Place, Tracker
from slicewise.training.tracking.guard import Guard
from slicewise.training.tracking.plain import METRICS, PlainTracker
from slicewise.training.tracking.read import read_metrics

CURES = {
    "tensorboard": "free space on the disk",
    "mlflow": "check train.track.mlflow_uri and that the server answers",
    "wandb": "check the connection and WANDB_API_KEY, or set train.track.wandb_mode=offline",
}


class Trackers(Tracker):
    """Hands figures to several trackers.

    Args:
        trackers: In this order; the plain file first, as the others may fail.
        every: Of the optimiser steps, every so many are handed on.
    """

    def __init__(self, trackers: Sequence[Tracker], every: int) -> None:
        self._trackers, self._every = trackers, every

    def step(self, step: int, figures: Mapping[str, float]) -> None:
        """Hand on every so many steps, counted from the stage's start so that a resumed one keeps the beat."""
        if step % self._every == 0:
            for tracker in self._trackers:
                tracker.step(step, figures)

    def epoch(self, epoch: int, figures: Mapping[str, float | None]) -> None:
        """Hand on."""
        for tracker in self._trackers:
            tracker.epoch(epoch, figures)

    def close(self, status: str) -> None:
        """Close all, the plain file last: it is the one that raises."""
        for tracker in reversed(self._trackers):
            tracker.close(status)


@contextlib.contextmanager
def open_trackers(
    config: TrackConfig,
    folder: Path,
    name: str,
    provenance: Mapping[str, Any],
    resume_step: int = 0,
    resume_epoch: int = 0,
) -> Iterator[Tracker]:
    """Open the plain file and the trackers asked for, and close them when the block ends.

    Args:
        config: The section ``train.track``.
        folder: The stage's tracking folder; must outlive a kill, as the checkpoints do.
        name: What the run is called.
        provenance: Stored with the run.
        resume_step: Optimiser steps of the whole stage that are in the checkpoint it goes on from.
        resume_epoch: Epochs that are in it.

    Raises:
        ConfigError: A tracker's package or key is missing.
        TrackingError: The plain file cannot be written.
    """
    place = Place(folder, name, provenance, resume_step, resume_epoch)
    trackers: list[Tracker] = [PlainTracker(folder, resume_step, resume_epoch)]
    fan = Trackers(trackers, config.every_steps)
    status = FAILED
    try:
        for tracker in config.trackers:
            start = functools.partial(_start, tracker, config, place)
            trackers.append(Guard(tracker, start, CURES[tracker]))
        yield fan
        status = FINISHED
    except (KeyboardInterrupt, SystemExit):
        status = KILLED
        raise
    finally:
        fan.close(status)


def _start(name: TrackerName, config: TrackConfig, place: Place) -> Tracker:
    """Open a tracker and hand it what the stage has behind it.

    All tools write late and lose something in a kill, and one may have been switched on since: the plain file has
    everything up to the checkpoint.
    """
    tracker = _open(name, config, place)
    if place.resumed:
        for record in read_metrics(place.folder / METRICS):
            kind = record.pop("kind")
            number = record.pop(kind)
            if kind == "step" and number <= place.resume_step:
                tracker.step(number, record)
            if kind == "epoch" and number <= place.resume_epoch:
                tracker.epoch(number, record)
    return tracker


def _open(name: TrackerName, config: TrackConfig, place: Place) -> Tracker:
    """Open a tracker. The packages are slow to import, so only those asked for are."""
    if name == "tensorboard":
        from slicewise.training.tracking.tensorboard_tracker import TensorBoardTracker

        return TensorBoardTracker(place)
    if name == "mlflow":
        from slicewise.training.tracking.mlflow_tracker import MlflowTracker

        return MlflowTracker(config, place)
    from slicewise.training.tracking.wandb_tracker import WandbTracker

    return WandbTracker(config, place)
