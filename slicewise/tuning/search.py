"""The ``tune`` verb's one call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from slicewise.errors import TrainingError
from slicewise.progress import Update
from slicewise.tuning.job import TuneJob

__all__ = ["TuneJob", "tune_stage"]


def tune_stage(job: TuneJob, out: Path, update: Update | None = None) -> dict[str, Any]:
    """Search for the settings with the best validation score; called again, it goes on from what is in ``out``.

    Args:
        job: What is searched, and on which data.
        out: The search's folder: ``best.yaml``, ``trials.json``, ``trials.csv``, Optuna's journal, and a folder for
            each trial.
        update: Called as trials go on.

    Returns:
        The content of ``trials.json``.

    Raises:
        ConfigError: A key or value of the space, or a layer of the configuration, is wrong.
        StoreError: There is no store or no split.
        UsageError: ``out`` holds a search of other settings or data.
        RunLockedError: Another search is working in ``out``.
        TrainingError: Optuna is not installed, no trial finished, or the validation side gives no score.
    """
    _need_optuna()
    from slicewise.tuning.loop import Search
    from slicewise.tuning.study import locked

    with locked(out):
        return Search(job, out, update).run()


def _need_optuna() -> None:
    try:
        import optuna  # noqa: F401 - only whether it is there
    except ImportError as error:
        raise TrainingError("the search needs Optuna", "pip install 'slicewise[tune]'") from error
