"""Optimisers, schedules, accumulation and the running mean of the weights."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from small_run import MODEL, SmallData, train_config

from slicewise.errors import ConfigError, TrainingError
from slicewise.model.network import MultiTaskUNet
from slicewise.training.checkpoint import BEST, EPOCH, LAST
from slicewise.training.optimise import make_average, make_optimiser, plateaus, rate_factor
from slicewise.training.stage import train_stage

SCHEDULES = ["cosine", "step", "plateau", "constant"]


@given(
    st.sampled_from(SCHEDULES),
    st.integers(1, 300),
    st.floats(0, 1),
    st.lists(st.floats(-10, 10), max_size=8),
    st.data(),
)
def test_rates_lie_between_nothing_and_the_peak(
    schedule: str, total: int, share: float, scores: list[float], data: st.DataObject
) -> None:
    train = train_config(schedule=schedule, warmup_share=share)
    step = data.draw(st.integers(0, total - 1))
    assert 0 < rate_factor(train, step, total, len(scores) + 1, scores) <= 1


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_warms_up_to_the_peak(schedule: str) -> None:
    train = train_config(schedule=schedule, warmup_share=0.1)
    rates = [rate_factor(train, step, 40, 1, []) for step in range(5)]
    assert rates == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_cosine_ends_near_a_hundredth() -> None:
    middle, end = (rate_factor(train_config(warmup_share=0.0), step, 101, 1, []) for step in (51, 101))
    assert middle == pytest.approx(0.505)
    assert end == pytest.approx(0.01)


@pytest.mark.parametrize(("epoch", "factor"), [(1, 1.0), (2, 1.0), (3, 0.5), (4, 0.5), (5, 0.25)])
def test_steps_come_after_so_many_epochs(epoch: int, factor: float) -> None:
    train = train_config(schedule="step", decay_every=2, decay_factor=0.5, warmup_share=0.0)
    assert rate_factor(train, 50, 100, epoch, []) == factor


@pytest.mark.parametrize(
    ("scores", "found"),
    [
        ([], 0),
        ([0.1, 0.2, 0.3, 0.4], 0),
        ([0.5, 0.5, 0.4], 1),  # an equal figure is not a better one
        ([0.5, 0.4, 0.6, 0.5], 0),
        ([0.5, 0.4, 0.4, 0.4, 0.4], 2),
        ([0.5, 0.4, 0.4, 0.6, 0.1, 0.1], 2),
    ],
)
def test_plateaus_of_two_epochs(scores: list[float], found: int) -> None:
    assert plateaus(scores, 2) == found
    train = train_config(schedule="plateau", plateau_patience=2, warmup_share=0.0)
    assert rate_factor(train, 50, 100, len(scores) + 1, scores) == pytest.approx(0.1**found)


@pytest.mark.parametrize(
    ("train", "kind", "defaults"),
    [
        ({}, torch.optim.AdamW, {"weight_decay": 1e-4}),
        ({"optimiser": "adam", "weight_decay": 0.0}, torch.optim.Adam, {"weight_decay": 0.0}),
        ({"optimiser": "sgd", "nesterov": True}, torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    ],
)
def test_optimisers_and_their_groups(train: dict[str, Any], kind: type, defaults: dict[str, Any]) -> None:
    joint = {"epochs": 1, "lr": 0.01, "encoder_lr_factor": 0.1, "tasks": ["segment"], "monitor": "dice"}
    config = train_config(joint=joint, **train)
    network = MultiTaskUNet(1, MODEL)
    optimiser = make_optimiser(network, config.joint, config)
    assert type(optimiser) is kind
    assert {key: optimiser.param_groups[0][key] for key in defaults} == defaults
    assert [group["peak"] for group in optimiser.param_groups] == pytest.approx([0.001, 0.01])
    assert not any(parameter.requires_grad for parameter in network.head.parameters())


@pytest.mark.parametrize(
    "train",
    [
        {"nesterov": True},
        {"optimiser": "sgd", "nesterov": True, "momentum": 0.0},
        {"optimiser": "lion"},
        {"schedule": "linear"},
        {"ema_decay": 1.0},
        {"accumulate": 0},
        {"decay_factor": 0.0},
        {"checkpoint_steps": -1},
        {"checkpoint_share": 0.0},
        {"keep_last_n": 0},
    ],
)
def test_impossible_settings_are_refused_by_name(train: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(train)) if len(train) == 1 else "nesterov"):
        train_config(**train)


def test_the_mean_of_the_weights_follows_the_formula() -> None:
    network = torch.nn.Linear(1, 1, bias=False)
    average = make_average(network, 0.3)
    assert average is not None
    expected = 0.0
    for update, value in enumerate([1.0, 3.0, -2.0, 8.0, 8.0, 5.0]):
        with torch.no_grad():
            network.weight.fill_(value)
        average.update_parameters(network)
        decay = min(0.3, (1 + update) / (10 + update)) if update else 0.0  # the first update copies
        expected = decay * expected + (1 - decay) * value
        assert float(average.module.weight) == pytest.approx(expected)
    assert make_average(network, 0.0) is None


def test_the_mean_is_what_is_handed_on(small: SmallData, tmp_path: Path) -> None:
    train_stage(small.job("seg_warmup", tmp_path / "plain"), tmp_path / "a")
    train_stage(small.job("seg_warmup", tmp_path / "mean", ema_decay=0.9), tmp_path / "b")
    given, best = load_file(tmp_path / "b" / "weights.safetensors"), load_file(tmp_path / "mean" / BEST)
    assert all(torch.equal(value, best[f"average.module.{name}"]) for name, value in given.items())
    # Averaging only watches: what learns is the same.
    plain = load_file(tmp_path / "a" / "weights.safetensors")
    assert all(torch.equal(value, best[f"model.{name}"]) for name, value in plain.items())
    assert not all(torch.equal(value, given[name]) for name, value in plain.items())
    # What the stage does not train is the same in both.
    assert all(torch.equal(value, given[name]) for name, value in plain.items() if name.startswith("head."))


def test_accumulated_batches_learn_like_one_large_batch(small: SmallData, tmp_path: Path) -> None:
    """Without what is random in a batch, and with a last group that is smaller than the others."""
    stage = {"epochs": 1, "lr": 0.01, "tasks": ["classify"], "monitor": "auc"}
    still = {"optimiser": "sgd", "weight_decay": 0.0, "warmup_share": 0.0, "precision": "fp32", "cls_head": stage}
    weights = []
    for size, accumulate in ((6, 1), (2, 3), (2, 1)):
        train = {**still, "augment": {"preset": "none"}, "batch_size": size, "accumulate": accumulate}
        job = small.job("cls_head", tmp_path / f"c{len(weights)}", **train)
        job = dataclasses.replace(job, model=MODEL.model_copy(update={"dropout": 0.0}))
        train_stage(job, tmp_path / "out")
        weights.append(load_file(tmp_path / "out" / "weights.safetensors"))
    large, accumulated, other = weights
    difference, control = (
        max(float((large[name] - found[name]).abs().max()) for name in large) for found in (accumulated, other)
    )
    assert difference < 1e-5
    assert control > 100 * difference


def test_small_sets_get_epochs_by_optimiser_steps(small: SmallData, tmp_path: Path) -> None:
    stage = {"epochs": 1, "min_steps": 5, "tasks": ["segment"], "monitor": "dice"}
    updates: list[tuple[int, int]] = []
    job = small.job("seg_warmup", tmp_path / "c", accumulate=2, batch_size=16, seg_warmup=stage)
    record = train_stage(job, tmp_path / "out", lambda done, total, _: updates.append((done, total)))
    steps = math.ceil(math.ceil(record["train_slices"] / 16) / 2)
    epochs = math.ceil(5 / steps)
    assert updates == [(done, epochs * steps) for done in range(1, epochs * steps + 1)]


def test_how_often_it_is_saved_does_not_make_another_stage(small: SmallData, tmp_path: Path) -> None:
    """The last epochs are kept, and fewer of them when that is asked for; a stage that goes on accepts both."""
    stage = {"epochs": 3, "tasks": ["segment"], "monitor": "dice"}
    folder = tmp_path / "c"

    def stop(done: int, total: int, text: str) -> None:
        if text.startswith("epoch 3"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_stage(small.job("seg_warmup", folder, keep_last_n=2, seg_warmup=stage), tmp_path / "out", stop)
    assert sorted(path.name for path in folder.iterdir()) == [BEST, EPOCH.format(1), EPOCH.format(2), LAST]
    other = small.job("seg_warmup", folder, checkpoint_steps=7, seg_warmup=stage)
    assert len(train_stage(other, tmp_path / "out")["history"]) == 3
    assert sorted(path.name for path in folder.iterdir()) == [BEST, LAST]
    with pytest.raises(TrainingError, match="another configuration"):
        train_stage(small.job("seg_warmup", folder, ema_decay=0.5, seg_warmup=stage), tmp_path / "out")
