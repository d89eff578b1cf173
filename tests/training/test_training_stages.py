"""The three stages, and resuming after a kill."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_run import SmallData, train_config

from slicewise.errors import TrainingError
from slicewise.training.checkpoint import BEST, LAST, Learner, Progress, load_checkpoint, save_checkpoint
from slicewise.training.keeper import Keeper
from slicewise.training.stage import train_stage

CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from small_run import MODEL, SEED, train_config
from slicewise.training.stage import StageJob, train_stage
store, split, checkpoints, out = map(Path, sys.argv[2:6])
longer = {"epochs": 3, "tasks": ["segment"], "monitor": "dice"}
config = train_config(seg_warmup=longer)
train_stage(StageJob("seg_warmup", MODEL, config, SEED, store, split, None, checkpoints), out)
"""


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    """Which parts of the network differ."""
    return {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}


def test_each_stage_changes_what_it_should(small: SmallData, tmp_path: Path) -> None:
    warm = train_stage(small.job("seg_warmup", tmp_path / "c1"), tmp_path / "warm")
    train_stage(small.job("cls_head", tmp_path / "c2", tmp_path / "warm"), tmp_path / "head")
    train_stage(small.job("joint", tmp_path / "c3", tmp_path / "head"), tmp_path / "joint")
    one, two, three = (load_file(tmp_path / name / "weights.safetensors") for name in ("warm", "head", "joint"))
    assert changed(one, two) == {"head"}
    assert changed(two, three) == {"encoder", "decoder", "head"}
    assert warm["trained_regions"] == ["WT", "TC", "ET"]


def start_child(small: SmallData, checkpoints: Path, out: Path) -> subprocess.Popen[bytes]:
    tests = Path(__file__).parents[1]
    folders = [small.store.folder, small.folder / "split", checkpoints, out]
    return subprocess.Popen([sys.executable, "-c", CHILD, str(tests), *map(str, folders)])


def test_a_killed_stage_goes_on_to_the_same_weights(small: SmallData, tmp_path: Path) -> None:
    assert start_child(small, tmp_path / "whole", tmp_path / "a").wait() == 0
    killed = start_child(small, tmp_path / "cut", tmp_path / "b")
    deadline = time.monotonic() + 120
    while not (tmp_path / "cut" / LAST).exists():
        assert killed.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert not (tmp_path / "b").exists()
    assert start_child(small, tmp_path / "cut", tmp_path / "b").wait() == 0
    whole, resumed = (load_file(tmp_path / name / "weights.safetensors") for name in ("a", "b"))
    assert not changed(whole, resumed)
    histories = [json.loads((tmp_path / name / "stage.json").read_text())["history"] for name in ("a", "b")]
    assert [row["train_loss"] for row in histories[0]] == [row["train_loss"] for row in histories[1]]


def learner(network: torch.nn.Module) -> Learner:
    return Learner(network, torch.optim.AdamW(network.parameters()), torch.amp.GradScaler("cpu", enabled=False))


def test_a_checkpoint_of_another_run_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    mine, other = learner(torch.nn.Linear(3, 2)), learner(torch.nn.Linear(3, 2))
    mine.network(torch.ones(1, 3)).sum().backward()
    mine.optimiser.step()
    save_checkpoint(tmp_path, LAST, mine, Progress("mine", epoch=2))
    found = load_checkpoint(tmp_path, LAST, other, "mine")
    assert found == Progress("mine", epoch=2)
    assert torch.equal(other.network.weight, mine.network.weight)
    with pytest.raises(TrainingError, match="another configuration"):
        load_checkpoint(tmp_path, LAST, other, "yours")
    path = tmp_path / LAST
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(TrainingError, match="damaged"):
        load_checkpoint(tmp_path, LAST, other, "mine")


@pytest.mark.parametrize(
    ("epochs", "best"),
    [
        ([(1.0, 0.9), (1.0, 0.4), (1.0, 0.6)], 2),  # of equal ones, that with the least loss
        ([(0.9, 0.2), (1.0, 0.8), (0.9, 0.1)], 2),  # the figure comes before the loss
        ([(1.0, 0.5), (1.0, 0.5)], 1),
        ([(-math.inf, math.nan), (0.5, 1.0)], 2),
    ],
)
def test_of_epochs_with_an_equal_figure_the_least_loss_is_kept(
    tmp_path: Path, epochs: list[tuple[float, float]], best: int
) -> None:
    network = torch.nn.Linear(1, 1)
    keeper = Keeper(tmp_path, train_config(), learner(network), Progress("of this run"))
    for epoch, (score, loss) in enumerate(epochs, start=1):
        torch.nn.init.constant_(network.weight, epoch)
        keeper.end_epoch(score, {"val_loss": loss})
    assert keeper.state.best_epoch == best
    assert float(load_file(tmp_path / BEST)["model.weight"]) == best


def test_small_sets_get_more_epochs() -> None:
    config = train_config(seg_warmup={"epochs": 1, "min_steps": 50, "tasks": ["segment"], "monitor": "dice"})
    assert config.stage("seg_warmup").min_steps == 50
