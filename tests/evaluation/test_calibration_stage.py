"""The ``calibrate`` stage, its file, and the sections that the evaluation makes of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy.special import expit
from small_run import MODEL, SmallRun, make_small_data

from slicewise.config import REGIONS, CalibrateConfig, EvaluateConfig
from slicewise.errors import StoreError, TrainingError
from slicewise.evaluation.calibrate import FILE, calibrate_stage, fit_calibration, read_calibration
from slicewise.evaluation.calibration_report import calibration_section, side_figures
from slicewise.evaluation.outputs import Outputs, collect_outputs
from slicewise.files import read_json, write_json
from slicewise.inference.calibration import Calibration
from slicewise.model.network import MultiTaskUNet
from slicewise.training.stage import WEIGHTS

CONFIG = EvaluateConfig(bootstrap=100)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that has learned nothing."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(3)
    save_file(MultiTaskUNet(4, MODEL).state_dict(), folder / WEIGHTS)
    return folder


@pytest.fixture(scope="module")
def outputs(weights: Path) -> Outputs:
    """Of the training side, which has the most patients."""
    small = make_small_data()
    return collect_outputs(small.store.folder, small.folder / "split", weights, MODEL, "train")


def test_the_stage_writes_what_the_bundle_takes(small_run: SmallRun) -> None:
    content = read_json(small_run.calibration / FILE)
    fitted = read_calibration(small_run.calibration)
    assert fitted.calibration.model_dump(mode="json") == content["calibration"]
    assert fitted.calibration == small_run.bundle.meta.calibration
    assert fitted.calibration.tumour.n == fitted.validation["tumour"]["after"]["n"] > 0
    assert list(fitted.validation) == ["tumour", *REGIONS]


def test_the_stage_can_be_repeated(small_run: SmallRun, tmp_path: Path) -> None:
    data = small_run.data
    again = calibrate_stage(
        data.store.folder, data.folder / "split", small_run.weights, MODEL, CalibrateConfig(), tmp_path
    )
    assert again == read_json(small_run.calibration / FILE) == read_json(tmp_path / FILE)


def test_calibration_of_a_network_that_knows_nothing(outputs: Outputs) -> None:
    """It is confident of nothing, so a temperature helps; a region that is nowhere cannot be fitted."""
    pixels = outputs.pixels["ET"]
    absent = outputs.pixels | {"ET": replace(pixels, truth=np.zeros_like(pixels.truth))}
    made = fit_calibration(replace(outputs, pixels=absent), CalibrateConfig())
    assert made.regions["WT"].method == "temperature"
    assert made.regions["WT"].nll_after < made.regions["WT"].nll_before
    assert [candidate.method for candidate in made.regions["TC"].candidates] == ["identity", "temperature"]
    assert made.regions["ET"].reason == "not fitted: validation has one class only"
    assert made.tumour.nll_after <= made.tumour.nll_before
    assert made.abstain.reason.startswith("no band: alpha 0.1 needs 9 validation patients")


def test_the_section_has_every_output_on_both_sides(outputs: Outputs) -> None:
    made = fit_calibration(outputs, CalibrateConfig())
    section = calibration_section(side_figures(outputs, made, CONFIG), outputs, made, CONFIG)
    assert list(section) == ["tumour", *REGIONS]
    for name, sides in section.items():
        assert list(sides) == ["validation", "test"]
        assert sides["validation"] == sides["test"]
        keys = {"before", "after"} | ({"foreground_before", "foreground_after"} if name != "tumour" else set())
        assert set(sides["test"]) == keys
    assert section["tumour"]["test"]["before"]["n"] == len(outputs.truth)
    pixels = section["WT"]["test"]
    assert 0 < pixels["foreground_before"]["n"] < pixels["before"]["n"] == len(outputs.pixels["WT"])
    frequency = sum(row["share"] * row["frequency"] for row in pixels["before"]["bins"])
    assert frequency == pytest.approx(share_of_tumour(outputs), abs=0.01)
    assert list(calibration_section(None, outputs, made, CONFIG)["WT"]) == ["test"]


def share_of_tumour(outputs: Outputs) -> float:
    """Share of the head's pixels that are WT, counted over all pixels."""
    head = tumour = 0
    for at in range(len(outputs.data)):
        batch = outputs.data.fetch([at])
        inside = (batch.image != 0).any(dim=1)[0]
        head += int(inside.sum())
        tumour += int((batch.regions[0, 0].bool() & inside).sum())
    return tumour / head


def test_a_validation_without_any_tumour(outputs: Outputs) -> None:
    """Nothing can be fitted: the network's own probability, one half, no band, and each says why."""
    empty = {name: replace(pixels, truth=np.zeros_like(pixels.truth)) for name, pixels in outputs.pixels.items()}
    made = fit_calibration(replace(outputs, truth=np.zeros_like(outputs.truth), pixels=empty), CalibrateConfig())
    for calibrator in (made.tumour, *made.regions.values()):
        assert calibrator.reason == "not fitted: validation has one class only"
    assert (made.threshold.value, made.abstain.available) == (0.5, False)
    logits = np.array([-1.0, 2.0], dtype=np.float32)
    np.testing.assert_allclose(made.tumour.apply(logits), expit(logits), atol=1e-6)


def test_a_region_that_no_study_knows(outputs: Outputs) -> None:
    made = fit_calibration(replace(outputs, pixels={"WT": outputs.pixels["WT"]}), CalibrateConfig())
    assert made.regions["ET"].reason == "not fitted: no validation study knows this region"
    section = calibration_section(None, replace(outputs, pixels={}), made, CONFIG)
    assert section["ET"]["test"]["foreground_after"]["n"] == 0


def test_a_validation_of_images_without_masks_or_classes(outputs: Outputs) -> None:
    nothing = np.zeros(0, dtype=np.float32)
    made = fit_calibration(replace(outputs, logits=nothing, truth=nothing, groups=[], pixels={}), CalibrateConfig())
    assert made.tumour.reason == "not fitted: too few patients to hold any out"
    assert made.threshold.rule == "default: validation has no slice of known class"


def test_a_network_whose_outputs_are_no_numbers(outputs: Outputs) -> None:
    broken = outputs.logits.copy()
    broken[0] = np.nan
    with pytest.raises(TrainingError, match="logits of tumour are not finite"):
        fit_calibration(replace(outputs, logits=broken), CalibrateConfig())
    with pytest.raises(TrainingError, match="logits of tumour are not finite"):
        calibration_section(None, replace(outputs, logits=broken), Calibration(), CONFIG)


@pytest.mark.parametrize(
    "change",
    [
        {"tumour": {"temperature": 1.5, "kept": True, "n": 10}},  # as the first version had it
        {"regions": {"WT": {}}},
        {"surprise": 1},
    ],
)
def test_a_calibration_of_another_kind_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    content = Calibration().model_dump(mode="json") | change
    write_json(tmp_path / FILE, {"calibration": content, "postprocess": {}, "tried": [], "validation": {}})
    with pytest.raises(StoreError, match="is no calibration") as caught:
        read_calibration(tmp_path)
    assert "slicewise calibrate" in caught.value.cure


def test_a_missing_calibration_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="calibration.json"):
        read_calibration(tmp_path)
    write_json(tmp_path / FILE, {"validation": {}})
    with pytest.raises(StoreError, match="is no calibration"):
        read_calibration(tmp_path)
