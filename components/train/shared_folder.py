"""What a TrainJob and the component that started it tell each other: files in one folder that all pods see."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from slicewise.config import ModelConfig, Section, StageName, TrainConfig
from slicewise.files import read_json, write_json
from slicewise.training.job import StageJob

JOB, PROGRESS, ERROR, WEIGHTS = "job.json", "progress.json", "error.txt", "weights"


class JobFile(Section):
    """A ``StageJob`` as a file, its paths as the pods see them."""

    stage: StageName
    model: ModelConfig
    train: TrainConfig
    seed: int
    store: Path
    split: Path
    init: Path | None
    checkpoints: Path
    tracking: Path | None

    @classmethod
    def of(cls, job: StageJob) -> JobFile:
        """The file of a job."""
        return cls(**vars(job))

    def job(self) -> StageJob:
        """The job of a file."""
        return StageJob(**{name: getattr(self, name) for name in type(self).model_fields})


@dataclass(frozen=True)
class SharedFolder:
    """What a TrainJob and its owner tell each other."""

    path: Path

    def write_job(self, job: StageJob) -> Path:
        """Write down what is to be done, and take away what an earlier try has told."""
        for name in (PROGRESS, ERROR):
            (self.path / name).unlink(missing_ok=True)
        write_json(self.path / JOB, JobFile.of(job).model_dump(mode="json"))
        return self.path / JOB

    def read_job(self) -> StageJob:
        """What is to be done."""
        return JobFile.model_validate(read_json(self.path / JOB)).job()

    @property
    def weights(self) -> Path:
        """The folder of the trained weights."""
        return self.path / WEIGHTS

    def tell(self, done: int, total: int, text: str) -> None:
        """Say how far the work has come."""
        write_json(self.path / PROGRESS, [done, total, text])

    def told(self) -> tuple[int, int, str] | None:
        """How far it has come, or None before the first word."""
        try:
            done, total, text = json.loads((self.path / PROGRESS).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return done, total, text

    def error(self) -> str:
        """Why it failed, in its own words, or nothing."""
        try:
            return (self.path / ERROR).read_text(encoding="utf-8").strip()
        except OSError:
            return ""
