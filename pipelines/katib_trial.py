"""One Katib trial: the training stages with some settings, and the score in the log where Katib looks for it."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any, cast

from pipelines.katib import METRIC
from slicewise.config import STAGES, Config, StageName, load_config
from slicewise.errors import SliceWiseError
from slicewise.logs import configure_logging
from slicewise.training.stage import StageJob, monitor_score, train_stage
from slicewise.tuning.trial import score_of


def main(arguments: list[str] | None = None) -> int:
    """Train, and write ``score=…`` after each epoch of the last stage and at the end."""
    words = _parser().parse_args(arguments)
    configure_logging()
    try:
        config = load_config(words.mode, words.config, words.set)
        with tempfile.TemporaryDirectory() as folder:
            _tell(run_trial(config, words.stages.split(","), words.store, words.split, Path(folder)))
    except SliceWiseError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return 0


def run_trial(config: Config, stages: list[str], store: Path, split: Path, folder: Path) -> float:
    """The best validation figure of the last stage.

    Raises:
        TrainingError: A stage cannot be trained with these settings, or gives no such figure.
    """
    record: dict[str, Any] = {}
    init: Path | None = None
    for stage in (cast("StageName", name) for name in STAGES if name in stages):
        monitor = config.train.stage(stage).monitor
        last = stage == stages[-1]
        checkpoints = folder / stage / "checkpoints"
        job = StageJob(stage, config.model, config.train, config.seed, store, split, init, checkpoints)

        def watch(figures: dict[str, Any], monitor: str = monitor, last: bool = last) -> None:
            if last:
                _tell(monitor_score(monitor, figures))

        record = train_stage(job, folder / stage, watch=watch)
        init = folder / stage
    return score_of(record)


def _tell(score: float) -> None:
    sys.stdout.write(f"{METRIC}={score:.6f}\n")
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, required=True, help="the slice store")
    parser.add_argument("--split", type=Path, required=True, help="the folder of split.json")
    parser.add_argument("--mode", default="baseline")
    parser.add_argument("--config", type=Path, help="a YAML file with keys to change")
    parser.add_argument("--stages", default=",".join(STAGES), help="stages to train, in order")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    return parser


if __name__ == "__main__":
    sys.exit(main())
