"""The bundle's calibration in every answer of the Predictor."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import expit
from small_run import MODEL

from slicewise.config import REGIONS, SliceConfig
from slicewise.errors import BundleError
from slicewise.inference.bundle import BundleMeta, load_bundle, write_bundle
from slicewise.inference.calibration import (
    Abstain,
    BetaMap,
    Calibration,
    Calibrator,
    IdentityMap,
    IsotonicMap,
    PlattMap,
    TemperatureMap,
    Threshold,
)
from slicewise.inference.calibration_maps import CalibrationMap
from slicewise.inference.predictor import Prediction, PredictOptions, Predictor, SliceInput
from slicewise.model.network import MultiTaskUNet
from slicewise.slices.crop import restore_map
from slicewise.slices.transform import prepare_slice

MAPS = [
    IdentityMap(),
    TemperatureMap(temperature=2.5),
    PlattMap(slope=3.0, intercept=-0.4),
    BetaMap(a=0.5, b=2.0, c=0.3),
    IsotonicMap(knots=((-1.0, -3.0), (-0.2, -1.0), (0.3, 0.5), (2.0, 0.5))),
]


def by(parameters: CalibrationMap) -> Calibrator:
    return Calibrator(method=parameters.method, parameters=parameters)


def made(folder: Path, calibration: Calibration) -> Path:
    """A bundle of seeded random weights."""
    torch.manual_seed(5)
    meta = BundleMeta(architecture=MODEL, preprocessing=SliceConfig(size=48), calibration=calibration)
    write_bundle(folder, MultiTaskUNet(4, MODEL).state_dict(), meta)
    return folder


def items(n: int = 4) -> list[SliceInput]:
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:60, :50]
    inside = ((rows - 30) / 24) ** 2 + ((columns - 25) / 20) ** 2 < 1
    return [SliceInput(rng.uniform(50, 900, (1, 60, 50)) * inside, ("flair",)) for _ in range(n)]


def predictions(predictor: Predictor, options: PredictOptions | None = None) -> list[Prediction]:
    found = predictor.predict(items(), options)
    assert all(isinstance(one, Prediction) for one in found)
    return [one for one in found if isinstance(one, Prediction)]


@pytest.mark.parametrize("parameters", MAPS, ids=lambda parameters: parameters.method)
def test_every_method_is_applied_to_slices_and_maps(tmp_path: Path, parameters: CalibrationMap) -> None:
    calibrator = by(parameters)
    calibration = Calibration(tumour=calibrator, regions=dict.fromkeys(REGIONS, calibrator))
    predictor = Predictor.load(made(tmp_path / "b", calibration), "cpu", threads=1)
    network = load_bundle(tmp_path / "b").network()
    for item, found in zip(items(), predictions(predictor), strict=True):
        prepared = prepare_slice(item.image, item.modalities, predictor.meta.preprocessing, item.pixel_mm)
        with torch.inference_mode():
            logits = network(torch.from_numpy(prepared.image[None]).float())
        assert found.tumor_probability == pytest.approx(float(calibrator.apply(logits.tumour.numpy())[0]), abs=1e-5)
        plane = restore_map(calibrator.apply(logits.regions[0, 1].numpy()), prepared.geometry) * prepared.foreground
        np.testing.assert_allclose(found.region_probability[1], plane, atol=1e-4)


def test_the_decision_is_by_the_band(tmp_path: Path) -> None:
    """One of four slices is surely tumour, one surely not, and two are between the ends."""
    plain = Predictor.load(made(tmp_path / "plain", Calibration()), "cpu", threads=1)
    p = sorted(found.tumor_probability for found in predictions(plain))
    abstain = Abstain(alpha=0.1, low=(p[0] + p[1]) / 2, high=(p[2] + p[3]) / 2)
    calibration = Calibration(threshold=Threshold(value=(p[1] + p[2]) / 2), abstain=abstain)
    predictor = Predictor.load(made(tmp_path / "banded", calibration), "cpu", threads=1)
    answers = sorted(predictions(predictor), key=lambda found: found.tumor_probability)
    assert [found.decision for found in answers] == ["no_tumour", "unsure", "unsure", "tumour"]
    assert [found.tumor_label for found in answers] == [False, False, True, True]
    high = predictions(predictor, PredictOptions(threshold=1.0))
    assert {found.decision for found in high} == {"no_tumour", "unsure"}
    assert {found.decision for found in predictions(plain)} <= {"tumour", "no_tumour"}


def test_a_bundle_without_calibration_gives_the_networks_probability(tmp_path: Path) -> None:
    folder = made(tmp_path / "b", Calibration(tumour=by(TemperatureMap(temperature=2.0))))
    meta = json.loads((folder / "bundle.json").read_text())
    del meta["calibration"]
    (folder / "bundle.json").write_text(json.dumps(meta))
    predictor = Predictor.load(folder, "cpu", threads=1)
    assert predictor.meta.calibration.tumour.reason == "not fitted"
    prepared = prepare_slice(items()[0].image, ("flair",), predictor.meta.preprocessing, (1.0, 1.0))
    with torch.inference_mode():
        logit = predictor.network(torch.from_numpy(prepared.image[None]).float()).tumour
    assert predictions(predictor)[0].tumor_probability == pytest.approx(float(expit(logit.numpy())[0]), abs=1e-5)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"regions": {"WT": {}, "TC": {}}}, "regions"),
        ({"tumour": {"method": "platt", "parameters": {"temperature": 2.0}}}, "tumour"),
        ({"tumour": {"temperature": 2.0}}, "tumour"),
    ],
)
def test_a_calibration_that_does_not_fit_is_refused(tmp_path: Path, change: dict[str, object], word: str) -> None:
    folder = made(tmp_path / "b", Calibration())
    meta = json.loads((folder / "bundle.json").read_text())
    meta["calibration"] |= change
    (folder / "bundle.json").write_text(json.dumps(meta))
    with pytest.raises(BundleError, match=word) as caught:
        load_bundle(folder)
    assert caught.value.cure
