"""One training stage in one process, or in as many as there are GPUs."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

import torch

from slicewise.errors import TrainingError
from slicewise.files import read_result
from slicewise.logs import configure_logging
from slicewise.progress import Update
from slicewise.training.job import StageJob
from slicewise.training.record import RECORD
from slicewise.training.stage import train_stage


def launch_stage(job: StageJob, out: Path, update: Update | None = None) -> dict[str, Any]:
    """Train a stage with ``train.processes`` processes of this machine; 0 takes one for each GPU.

    Where ``torchrun`` or Kubeflow's Trainer has started the processes already, this one does its part.

    Args:
        job: What to train.
        out: The folder to write.
        update: Shows progress where one process trains; several write lines to the log.

    Returns:
        The content of ``stage.json``.

    Raises:
        TrainingError: As ``train_stage`` does, or one of the processes failed.
    """
    started = int(os.environ.get("WORLD_SIZE", "1")) > 1
    processes = job.train.processes or torch.cuda.device_count() or 1
    if started or processes == 1:
        return train_stage(job, out, update)
    # PyTorch's launcher takes a while to import: only who needs it pays.
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        max_restarts=0,
        start_method="spawn",
    )
    try:
        elastic_launch(config, _train_rank)(job, out)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        # Text, or for an exception a record of it: the annotation knows only the first.
        told: Any = failure.message
        reason = str(told.get("message", "")) if isinstance(told, dict) else str(told)
        raise TrainingError(
            f"stage {job.stage}: process {rank} of {processes} failed: {reason.strip().splitlines()[-1]}",
            "see its log above; train.processes: 1 trains in one process",
        ) from error
    record: dict[str, Any] = read_result(out / RECORD, "train")
    return record


def _train_rank(job: StageJob, out: Path) -> None:
    """What each process does; its result is on the disk."""
    configure_logging()
    train_stage(job, out)
