"""A stage in as many processes as the configuration says, started by the stage itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file
from small_run import SmallData

from slicewise.config import TrainConfig
from slicewise.errors import TrainingError
from slicewise.training.launch import launch_stage
from slicewise.training.stage import StageJob

JOINT = {"epochs": 1, "lr": 0.01, "tasks": ["segment", "classify"], "monitor": "combined"}


def job(small: SmallData, folder: Path, processes: int) -> StageJob:
    return small.job("joint", folder / "checkpoints", joint=JOINT, batch_size=4, processes=processes)


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("WORLD_SIZE", raising=False)


def test_two_processes_train_one_stage(small: SmallData, tmp_path: Path) -> None:
    record = launch_stage(job(small, tmp_path / "two", 2), tmp_path / "two" / "weights")
    assert record["processes"] == 2
    alone = launch_stage(job(small, tmp_path / "one", 1), tmp_path / "one" / "weights")
    assert alone["processes"] == 1
    weights = [load_file(tmp_path / name / "weights" / "weights.safetensors") for name in ("two", "one")]
    # Two processes see the doubled batch: other weights of the same network.
    assert weights[0].keys() == weights[1].keys()
    assert any(not weights[0][name].equal(weights[1][name]) for name in weights[0])


def test_a_failing_process_is_named_with_its_reason(small: SmallData, tmp_path: Path) -> None:
    wrong = replace(job(small, tmp_path, 2), store=tmp_path / "nowhere")
    with pytest.raises(TrainingError, match=r"stage joint: process \d of 2 failed: .*nowhere is not a slice store"):
        launch_stage(wrong, tmp_path / "weights")


def test_without_a_gpu_zero_is_one_process(small: SmallData, tmp_path: Path) -> None:
    assert TrainConfig.model_fields["processes"].default == 0
    assert launch_stage(job(small, tmp_path, 0), tmp_path / "weights")["processes"] == 1
