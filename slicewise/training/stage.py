"""The ``train`` stage: one loop, three stages as configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from slicewise.progress import Update
from slicewise.training.job import StageJob
from slicewise.training.loop import Loop, Watch
from slicewise.training.ranks import join_ranks
from slicewise.training.record import RECORD, WEIGHTS, load_weights, monitor_score

__all__ = ["RECORD", "WEIGHTS", "StageJob", "load_weights", "monitor_score", "train_stage"]


def train_stage(job: StageJob, out: Path, update: Update | None = None, watch: Watch | None = None) -> dict[str, Any]:
    """Train one stage and write ``weights.safetensors`` and ``stage.json`` into ``out``.

    A job that finds its own checkpoint goes on from it, to the same weights as if it had never stopped. Under
    ``torchrun`` every process calls this and does its part.

    Args:
        job: What to train.
        out: The folder to write.
        update: Shows progress.
        watch: Called with the figures of every epoch, after its checkpoint; what it raises ends the stage.

    Returns:
        The content of ``stage.json``.

    Raises:
        TrainingError: Nothing to learn from, a loss that is not finite, or a checkpoint of another run.
    """
    with join_ranks() as ranks:
        return Loop(job, ranks).run(out, update, watch)
