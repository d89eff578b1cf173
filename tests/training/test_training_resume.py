"""A stage killed at any step, or while it writes a checkpoint, ends with the same weights."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from small_run import SmallData

from slicewise.training.checkpoint import BEST, LAST, Learner, Progress, load_checkpoint, save_checkpoint
from slicewise.training.stage import StageJob, train_stage

EPOCHS = 3
STAGE = {"epochs": EPOCHS, "tasks": ["segment"], "monitor": "dice"}
RANDOM = random.Random(11)
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["slicewise.training.stage"])  # imported once, not by every process that is killed


def dies(job: StageJob, out: Path, at_step: int | None, event: tuple[str, str, int] | None) -> None:
    """Train in this process and kill it after a step, or at the n-th audit event about a file."""
    torch.set_num_threads(1)
    left = [event[2] if event else 0]

    def hook(name: str, args: tuple[Any, ...]) -> None:
        if event and name == event[0] and event[1] in str(args):
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)

    def update(done: int, total: int, text: str) -> None:
        if done == at_step:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    train_stage(job, out, update)


def killed(job: StageJob, out: Path, at_step: int | None = None, event: tuple[str, str, int] | None = None) -> None:
    child = FORKS.Process(target=dies, args=(job, out, at_step, event))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert not out.exists()


def outcome(out: Path) -> tuple[bytes, list[dict[str, Any]]]:
    """The bytes of the weights, and the history without times."""
    history = json.loads((out / "stage.json").read_text())["history"]
    figures = [
        {key: row[key] for key in row if key not in ("seconds", "val_seconds", "data_wait")} for row in history
    ]
    return (out / "weights.safetensors").read_bytes(), figures


def progress(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as handle:
        return dict(json.loads(handle.metadata()["progress"]))


def small_job(small: SmallData, checkpoints: Path, **train: Any) -> StageJob:
    return small.job(
        "seg_warmup",
        checkpoints,
        **{"seg_warmup": STAGE, "checkpoint_steps": 1, "checkpoint_share": 1.0, **train},
    )


@dataclass(frozen=True)
class Whole:
    """What an uninterrupted stage leaves, and its optimiser steps in all."""

    outcome: tuple[bytes, list[dict[str, Any]]]
    steps: int


def train_whole(small: SmallData, folder: Path, **train: Any) -> Whole:
    steps: list[int] = []
    job = small_job(small, folder / "whole", **{"checkpoint_steps": 0, **train})
    train_stage(job, folder / "all", lambda done, *_: steps.append(done))
    return Whole(outcome(folder / "all"), len(steps))


@pytest.fixture(scope="module")
def whole(small: SmallData, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return train_whole(small, tmp_path_factory.mktemp("whole"))


def test_killed_again_and_again_at_any_step(small: SmallData, whole: Whole, tmp_path: Path) -> None:
    """A checkpoint after every second step of an epoch, so that kills hit both fresh and stale ones."""
    job, out = small_job(small, tmp_path / "cut", checkpoint_steps=2), tmp_path / "out"
    for step in sorted(RANDOM.sample(range(2, whole.steps + 1), 3)):
        killed(job, out, at_step=step)
        state = progress(tmp_path / "cut" / LAST)
        assert step - (state["epoch"] * whole.steps // EPOCHS + state["step"]) in (0, 1)
    train_stage(job, out)
    assert outcome(out) == whole.outcome


@pytest.mark.parametrize(
    "event",
    [
        ("tempfile.mkstemp", LAST, 2),  # an empty file is there
        ("os.rename", LAST, 3),  # all is written, under the temporary name
        ("os.rename", BEST, 1),
        ("tempfile.mkstemp", "epoch-0002", 1),  # between the best and the last
    ],
)
def test_killed_while_writing_a_checkpoint(
    small: SmallData, whole: Whole, tmp_path: Path, event: tuple[str, str, int]
) -> None:
    folder = tmp_path / "cut"
    job = small_job(small, folder, keep_last_n=2)
    killed(job, tmp_path / "out", event=event)
    train_stage(job, tmp_path / "out")
    assert outcome(tmp_path / "out") == whole.outcome
    names = ["best.safetensors", "epoch-0002.safetensors", "epoch-0003.safetensors", "last.safetensors"]
    assert sorted(path.name for path in folder.iterdir()) == names


@pytest.mark.parametrize(
    "train",
    [
        {"optimiser": "adam", "schedule": "constant"},
        {"optimiser": "sgd", "nesterov": True, "schedule": "plateau", "plateau_patience": 1},
        {"optimiser": "sgd", "momentum": 0.0, "schedule": "step", "decay_every": 1},
        {"accumulate": 3, "ema_decay": 0.9},
        {"precision": "bf16", "batch_size": 16},
    ],
    ids=lambda train: "-".join(map(str, train.values())),
)
def test_every_way_of_optimising_resumes_exactly(small: SmallData, tmp_path: Path, train: dict[str, Any]) -> None:
    """Stopped by an exception within the second epoch: what is on the disk is the same as after a kill."""
    train = {"seg_warmup": {**STAGE, "epochs": 2}, **train}
    expected = train_whole(small, tmp_path, **train)
    job = small_job(small, tmp_path / "cut", **train)
    steps: list[int] = []

    def stop(done: int, total: int, text: str) -> None:
        steps.append(done)
        if done == total // 2 + 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_stage(job, tmp_path / "resumed", stop)
    state = progress(tmp_path / "cut" / LAST)
    assert (state["epoch"], state["step"]) == (1, 1)
    again: list[int] = []
    train_stage(job, tmp_path / "resumed", lambda done, *_: again.append(done))
    assert again[0] == steps[-1] + 1
    assert outcome(tmp_path / "resumed") == expected.outcome


def test_the_scaler_and_the_generator_go_on_where_they_were(tmp_path: Path) -> None:
    """Only fp16 has a scaler with a state, which is slow on CPUs; so not as a whole stage."""
    learners = []
    for _ in range(2):
        network = torch.nn.Linear(2, 2)
        scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=3)
        learners.append(Learner(network, torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9), scaler))
    one, two = learners
    for _ in range(4):
        one.scaler.scale(one.network(torch.ones(1, 2)).sum()).backward()
        one.scaler.step(one.optimiser)
        one.scaler.update()
    save_checkpoint(tmp_path, LAST, one, Progress("mine"))
    drawn = torch.rand(3)
    assert load_checkpoint(tmp_path, LAST, two, "mine") == Progress("mine")
    assert torch.equal(torch.rand(3), drawn)
    assert two.scaler.state_dict() == one.scaler.state_dict()
    assert two.scaler.state_dict()["scale"] == 8.0
    assert two.scaler.state_dict()["_growth_tracker"] == 1


def test_the_optimiser_goes_on_in_the_same_memory_layout(tmp_path: Path) -> None:
    """A checkpoint holds tensors in plain order; another order of the same numbers may round differently."""
    learners = []
    for _ in range(2):
        network = torch.nn.Conv2d(4, 4, 3).to(memory_format=torch.channels_last)
        scaler = torch.amp.GradScaler("cpu", enabled=False)
        learners.append(Learner(network, torch.optim.AdamW(network.parameters()), scaler))
    one, two = learners
    one.network(torch.rand(1, 4, 8, 8)).sum().backward()
    one.optimiser.step()
    save_checkpoint(tmp_path, LAST, one, Progress("mine"))
    load_checkpoint(tmp_path, LAST, two, "mine")
    states = [learner.optimiser.state_dict()["state"][0]["exp_avg"] for learner in learners]
    assert torch.equal(*states)
    assert states[0].stride() == states[1].stride() != states[0].contiguous().stride()
