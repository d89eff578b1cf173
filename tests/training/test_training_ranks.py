"""Two real processes under torchrun learn what one learns with the doubled batch."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from small_run import SmallData

from slicewise.training.checkpoint import LAST
from slicewise.training.stage import train_stage

CHILD = """
import json, os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from small_run import MODEL, SEED, train_config
from slicewise.training.stage import StageJob, train_stage
spec = json.loads(sys.argv[1])
folder, out = Path(spec["data"]), Path(spec["out"])
model = MODEL.model_copy(update={"dropout": spec["dropout"]})
train = train_config(**spec["train"])
job = StageJob(spec["stage"], model, train, SEED, folder / "store", folder / "split", None, out / "checkpoints")

def update(done, total, text):
    if done == spec["die_at"]:
        os.kill(os.getpid(), signal.SIGKILL)

train_stage(job, out / "weights", update)
"""
STAGE = {"epochs": 2, "lr": 0.01, "tasks": ["segment", "classify"], "monitor": "combined"}
# In fp32 on every machine: sums in bf16 differ by more than these tests allow.
STILL = {"augment": {"preset": "none"}, "warmup_share": 0.0, "precision": "fp32"}


def run(small: SmallData, out: Path, processes: int, die_at: int = 0, dropout: float = 0.0, **train: Any) -> int:
    """Train the joint stage in so many processes."""
    spec = {
        "data": str(small.folder),
        "out": str(out),
        "stage": "joint",
        "train": {**STILL, "joint": STAGE, **train},
        "die_at": die_at,
        "dropout": dropout,
    }
    script = out / "child.py"
    out.mkdir(exist_ok=True)
    script.write_text(CHILD)
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    places = os.pathsep.join([str(Path(__file__).parents[1]), str(Path(__file__).parents[2])])
    environment = {**os.environ, "PYTHONPATH": places, "OMP_NUM_THREADS": "1"}
    words = [*command, str(script), json.dumps(spec)]
    return subprocess.run(words, env=environment, capture_output=True, timeout=300, check=False).returncode


def history(out: Path) -> list[dict[str, Any]]:
    return list(json.loads((out / "weights" / "stage.json").read_text())["history"])


@pytest.mark.parametrize(
    ("train", "tolerance"),
    [
        # A mean over slices is the same however they are dealt out; Adam makes the last digits visible.
        ({"loss": {"segmentation": "bce"}}, 2e-3),
        # Dice pools the slices of one process's batch: close, not the same.
        ({}, 0.1),
    ],
    ids=["bce", "dice_bce"],
)
def test_two_ranks_learn_like_one_with_the_doubled_batch(
    small: SmallData, tmp_path: Path, train: dict[str, Any], tolerance: float
) -> None:
    assert run(small, tmp_path / "two", 2, batch_size=4, **train) == 0
    assert run(small, tmp_path / "one", 1, batch_size=8, **train) == 0
    assert run(small, tmp_path / "half", 1, batch_size=4, **train) == 0
    two, one, half = (history(tmp_path / name) for name in ("two", "one", "half"))
    for figure in ("train_loss", "val_loss"):
        curves = [[row[figure] for row in rows] for rows in (two, one, half)]
        assert curves[0] == pytest.approx(curves[1], rel=tolerance), figure
    # The control: without the second process it is another curve.
    assert abs(half[0]["train_loss"] - one[0]["train_loss"]) > abs(two[0]["train_loss"] - one[0]["train_loss"])
    assert json.loads((tmp_path / "two" / "weights" / "stage.json").read_text())["processes"] == 2


def test_accumulation_exchanges_gradients_once_a_step(small: SmallData, tmp_path: Path) -> None:
    loss = {"segmentation": "bce"}
    assert run(small, tmp_path / "two", 2, batch_size=2, accumulate=2, loss=loss) == 0
    assert run(small, tmp_path / "one", 1, batch_size=8, loss=loss) == 0
    curves = [[row["train_loss"] for row in history(tmp_path / name)] for name in ("two", "one")]
    assert curves[0] == pytest.approx(curves[1], rel=2e-3)


def test_a_killed_rank_ends_all_and_the_stage_goes_on_to_the_same_weights(small: SmallData, tmp_path: Path) -> None:
    """With dropout and augmentation, which every process draws for itself."""
    train = {"augment": {"preset": "minimal"}, "batch_size": 4, "checkpoint_steps": 1, "checkpoint_share": 1.0}
    assert run(small, tmp_path / "whole", 2, dropout=0.2, **train) == 0
    assert run(small, tmp_path / "cut", 2, die_at=5, dropout=0.2, **train) not in (0, -signal.SIGKILL)
    assert not (tmp_path / "cut" / "weights").exists()
    assert (tmp_path / "cut" / "checkpoints" / LAST).exists()
    assert run(small, tmp_path / "cut", 2, dropout=0.2, **train) == 0
    whole, cut = (load_file(tmp_path / name / "weights" / "weights.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(value, cut[name]) for name, value in whole.items())


def test_compiled_and_channels_last_learn_the_same(small: SmallData, tmp_path: Path) -> None:
    """Through the compiler's tracing, without its slow code generation; other layouts round differently."""
    losses = []
    for number, changes in enumerate(({}, {"compile": "aot_eager"}, {"memory_format": "channels_last"})):
        job = small.job("seg_warmup", tmp_path / f"c{number}", **STILL, **changes)
        losses.append(train_stage(job, tmp_path / f"o{number}")["history"][0]["train_loss"])
    assert losses[1:] == [pytest.approx(losses[0], rel=1e-3)] * 2
