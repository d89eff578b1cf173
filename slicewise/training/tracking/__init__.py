"""Experiment tracking: a plain file always, TensorBoard, MLflow and W&B on demand."""

from slicewise.training.tracking.base import Tracker, TrackingError
from slicewise.training.tracking.opening import open_trackers
from slicewise.training.tracking.plain import METRICS, PlainTracker
from slicewise.training.tracking.read import epoch_figures, read_metrics, smoothed_losses, step_losses

__all__ = [
    "METRICS",
    "PlainTracker",
    "Tracker",
    "TrackingError",
    "epoch_figures",
    "open_trackers",
    "read_metrics",
    "smoothed_losses",
    "step_losses",
]
