"""Which slices an epoch, a batch and an optimiser step have."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_run import MODEL, SmallData, train_config

from slicewise.config import SamplingConfig
from slicewise.errors import TrainingError
from slicewise.model.losses import Losses, segmentation_loss
from slicewise.model.network import MultiTaskUNet
from slicewise.slices.batches import SliceData
from slicewise.training.plan import Plan
from slicewise.training.sampling import Sampler
from slicewise.training.stage import train_stage

PLANS = st.builds(
    lambda slices, size, accumulate, world: (slices + world, size, accumulate, world),
    st.integers(0, 60),
    st.integers(1, 7),
    st.integers(1, 4),
    st.integers(1, 3),
)


@given(PLANS)
def test_every_slice_is_learnt_once_and_counts_alike(given_: tuple[int, int, int, int]) -> None:
    slices, size, accumulate, world = given_
    plans = [Plan(slices, size, accumulate, rank, world) for rank in range(world)]
    order = list(range(slices))
    seen: list[int] = []
    weight: Counter[int] = Counter()
    step = 0
    for number in range(plans[0].batches):
        for plan in plans:
            rows = plan.rows(order, number)
            assert 0 < len(rows) <= size
            seen += rows
            # A mean over the rows times the share, averaged over the processes, is a sum over a step's slices.
            weight[step] += plan.share(number, len(rows)) / world
        step += plans[0].is_step(number)
    left_out = slices - len(seen)
    assert sorted(seen) == order[: len(seen)]
    assert 0 <= left_out < world
    assert step == plans[0].steps
    assert all(value == pytest.approx(1.0) for value in weight.values())


def test_fewer_slices_than_processes_are_refused() -> None:
    with pytest.raises(TrainingError, match="1 training slices are too few for 2 processes"):
        Plan(1, 4, 1, 0, 2)


def data_with(small: SmallData, sources: dict[int, str]) -> SliceData:
    """The training side, with some studies said to come from other sources."""
    data = SliceData(small.store, small.split.train, selected_only=True)
    studies = {
        key: small.store.studies[key].model_copy(update={"source": sources.get(at % 2, "a")})
        for at, key in enumerate(small.split.train)
    }
    changed = SliceData.__new__(SliceData)
    changed.__dict__.update(data.__dict__)
    store = type(small.store).__new__(type(small.store))
    store.__dict__.update(small.store.__dict__)
    store.__dict__["studies"] = studies
    changed.store = store
    return changed


def test_without_a_wish_an_epoch_is_every_slice_once(small: SmallData) -> None:
    data = data_with(small, {})
    sampler = Sampler(data, SamplingConfig())
    assert sorted(sampler.order(1)) == list(range(len(data)))
    assert sampler.order(1) == sampler.order(1) != sampler.order(2)


@given(st.integers(2, 120), st.integers(0, 1000))
def test_classes_come_equally_often(slices: int, seed: int) -> None:
    from small_run import make_small_data

    data = data_with(make_small_data(), {})
    sampler = Sampler(data, SamplingConfig(balance_classes=True, epoch_slices=slices))
    order = sampler.order(seed)
    tumour = data.tumour()
    counts = Counter(tumour[row] for row in order)
    assert len(order) == slices
    unknown = sum(value is None for value in tumour) / len(tumour) * slices
    assert counts[None] == pytest.approx(unknown, abs=1)
    assert abs(counts[True] - counts[False]) <= 1
    for wanted in (True, False):  # none comes a second time before all have come once
        times = Counter(row for row in order if tumour[row] is wanted)
        there = sum(value is wanted for value in tumour)
        assert max(times.values(), default=0) <= -(-counts[wanted] // there)


def test_sources_come_in_the_ratio_asked_for(small: SmallData) -> None:
    data = data_with(small, {0: "a", 1: "b"})
    names = data.sources()
    sampler = Sampler(data, SamplingConfig(source_ratio={"a": 3, "b": 1}, epoch_slices=80))
    counts = Counter(names[row] for row in sampler.order(5))
    assert counts["a"] == pytest.approx(60, abs=2)
    with pytest.raises(TrainingError, match="source_ratio names a, the training side has a, b"):
        Sampler(data, SamplingConfig(source_ratio={"a": 1}))


def test_a_stage_learns_from_the_epoch_asked_for(small: SmallData, tmp_path: Any) -> None:
    job = small.job("joint", tmp_path / "c", sampling={"balance_classes": True, "epoch_slices": 12})
    record = train_stage(job, tmp_path / "out")
    assert record["epoch_slices"] == 12
    assert record["provenance"]["data_digest"] == small.store.index.data_digest
    lines = (job.curves / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 2 + 1  # two steps of at most 8 slices, one epoch


@pytest.mark.parametrize(("task", "stage"), [("classify", "seg_warmup"), ("segment", "cls_head")])
def test_a_task_that_is_off_skips_its_stage(small: SmallData, tmp_path: Any, task: str, stage: Any) -> None:
    record = train_stage(small.job(stage, tmp_path / "c", tasks=[task]), tmp_path / "out")
    assert record["skipped"] == "train.tasks switches its tasks off"
    joint = train_stage(small.job("joint", tmp_path / "d", tmp_path / "out", tasks=[task]), tmp_path / "joint")
    figures = joint["history"][-1]
    assert (figures["val_dice"] is None) == (task == "classify")
    assert (figures["val_auc"] is None) == (task == "segment")
    assert joint["trained_tasks"] == [task]
    assert bool(joint["trained_regions"]) == (task == "segment")


def test_deep_supervision_weighs_the_scales(small: SmallData) -> None:
    model = MODEL.model_copy(update={"deep_supervision": True, "dropout": 0.0})
    network = MultiTaskUNet(4, model).train()
    batch = SliceData(small.store, small.split.train, selected_only=True).fetch(range(6))
    logits = network(batch.image)
    assert logits.coarse is not None
    maps = (logits.regions, *logits.coarse)
    expected, weights = torch.zeros(()), 0.0
    for level, scale in enumerate(maps):
        target = torch.nn.functional.avg_pool2d(batch.regions, 2**level)
        expected = expected + 0.5**level * segmentation_loss(scale, (target >= 0.5).float(), batch.known)
        weights += 0.5**level
    found = Losses().scales(maps, batch.regions, batch.known)
    assert float(found.detach()) == pytest.approx(float(expected.detach()) / weights)
    found.backward()
    assert all(head.weight.grad.abs().sum() > 0 for head in network.decoder.coarse)


def test_a_stage_trains_with_deep_supervision(small: SmallData, tmp_path: Any) -> None:
    import dataclasses

    job = small.job("seg_warmup", tmp_path / "c", seg_warmup=train_config().seg_warmup.model_dump())
    job = dataclasses.replace(job, model=MODEL.model_copy(update={"deep_supervision": True}))
    assert train_stage(job, tmp_path / "out")["best_epoch"] == 1
