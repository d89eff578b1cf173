"""Members of an ensemble from bundles and from trained stages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from slicewise.config import ModelConfig, SliceConfig
from slicewise.errors import BundleError, TrainingError
from slicewise.inference.bundle import BundleMeta, write_bundle
from slicewise.inference.calibration import Calibration, Calibrator, TemperatureMap
from slicewise.inference.ensemble import bundle_members, checkpoint_members
from slicewise.inference.sampling import SamplingPlan, draw_samples
from slicewise.model.network import MultiTaskUNet
from slicewise.training.record import WEIGHTS, write_result

MODEL = ModelConfig(preset="tiny", dropout=0.0)
CPU = torch.device("cpu")
TAUGHT = {"trained_regions": ["WT"], "trained_tasks": ["classify", "segment"]}


def network_of(seed: int, model: ModelConfig = MODEL) -> MultiTaskUNet:
    torch.manual_seed(seed)
    return MultiTaskUNet(4, model).eval()


def bundle(folder: Path, seed: int, temperature: float = 1.0, **meta: Any) -> Path:
    tumour = Calibrator(method="temperature", parameters=TemperatureMap(temperature=temperature))
    given = {"architecture": MODEL, "preprocessing": SliceConfig(size=32), "calibration": Calibration(tumour=tumour)}
    made = BundleMeta.model_validate(given | meta)
    write_bundle(folder, network_of(seed, made.architecture).state_dict(), made)
    return folder


def stage(folder: Path, seed: int, model: ModelConfig = MODEL, **record: Any) -> Path:
    write_result(folder, network_of(seed, model), TAUGHT | record)
    return folder


def image() -> torch.Tensor:
    return torch.randn(2, 4, 32, 32, generator=torch.Generator().manual_seed(1))


def mean_of(temperatures: list[float]) -> np.ndarray:
    with torch.inference_mode():
        logits = [network_of(seed)(image()).tumour for seed in range(len(temperatures))]
    return np.mean([(z / t).sigmoid().numpy() for z, t in zip(logits, temperatures, strict=True)], axis=0)


def test_bundles_make_an_ensemble_each_with_its_calibration(tmp_path: Path) -> None:
    folders = [bundle(tmp_path / str(seed), seed, temperature=1.0 + seed) for seed in range(3)]
    samples = draw_samples(bundle_members(folders, CPU), image(), SamplingPlan(3))
    np.testing.assert_allclose(samples.tumour.mean, mean_of([1.0, 2.0, 3.0]), atol=1e-6)
    assert samples.sources == ("ensemble",)


def test_trained_stages_make_an_ensemble_with_one_calibration(tmp_path: Path) -> None:
    folders = [stage(tmp_path / str(seed), seed) for seed in range(2)]
    members = checkpoint_members(folders, 4, MODEL, Calibration(), CPU)
    samples = draw_samples(members, image(), SamplingPlan(2))
    np.testing.assert_allclose(samples.tumour.mean, mean_of([1.0, 1.0]), atol=1e-6)
    assert (samples.tumour.mutual_information > 0).all()


def test_bundles_of_other_architectures_may_meet(tmp_path: Path) -> None:
    larger = ModelConfig(preset="small", dropout=0.0)
    folders = [bundle(tmp_path / "a", 0), bundle(tmp_path / "b", 1, architecture=larger)]
    assert draw_samples(bundle_members(folders, CPU), image(), SamplingPlan(2)).tumour_samples.shape == (2, 2)


@pytest.mark.parametrize(
    ("change", "word"),
    [({"preprocessing": SliceConfig(size=48)}, "preprocessing"), ({"trained_regions": ("WT",)}, "trained_regions")],
)
def test_bundles_that_do_not_fit_are_refused(tmp_path: Path, change: dict[str, Any], word: str) -> None:
    folders = [bundle(tmp_path / "a", 0), bundle(tmp_path / "b", 1, **change)]
    with pytest.raises(BundleError, match=word) as caught:
        bundle_members(folders, CPU)
    assert str(folders[1]) in caught.value.message
    assert caught.value.cure


@pytest.mark.parametrize("count", [0, 2])
def test_no_member_or_one_twice_is_refused(tmp_path: Path, count: int) -> None:
    with pytest.raises(BundleError, match="different"):
        bundle_members([bundle(tmp_path / "a", 0)] * count, CPU)
    with pytest.raises(TrainingError, match="different"):
        checkpoint_members([stage(tmp_path / "s", 0)] * count, 4, MODEL, Calibration(), CPU)


def test_stages_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    first = stage(tmp_path / "a", 0)
    other_task = stage(tmp_path / "b", 1, trained_tasks=["segment"])
    with pytest.raises(TrainingError, match="trained_tasks"):
        checkpoint_members([first, other_task], 4, MODEL, Calibration(), CPU)
    other_size = stage(tmp_path / "c", 1, ModelConfig(preset="small"))
    with pytest.raises(TrainingError, match=WEIGHTS):
        checkpoint_members([first, other_size], 4, MODEL, Calibration(), CPU)
    with pytest.raises(TrainingError, match="nowhere"):
        checkpoint_members([first, tmp_path / "nowhere"], 4, MODEL, Calibration(), CPU)
