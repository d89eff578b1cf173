"""The ``train`` stage: one loop, three stages as configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from slicewise.progress import Update
from slicewise.training.job import StageJob
from slicewise.training.loop import Loop
from slicewise.training.record import RECORD, WEIGHTS, load_weights, monitor_score

__all__ = ["RECORD", "WEIGHTS", "StageJob", "load_weights", "monitor_score", "train_stage"]


def train_stage(job: StageJob, out: Path, update: Update | None = None) -> dict[str, Any]:
    """Train one stage and write ``weights.safetensors`` and ``stage.json`` into ``out``.

    A job that finds its own checkpoint goes on from it, to the same weights as if it had never stopped.

    Returns:
        The content of ``stage.json``.

    Raises:
        TrainingError: Nothing to learn from, a loss that is not finite, or a checkpoint of another run.
    """
    return Loop(job).run(out, update)
