"""The ``evaluate`` stage as a whole: figures of what is served, and sides on which something is missing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from small_run import MODEL, SmallRun

from slicewise.config import EvaluateConfig, GateConfig
from slicewise.errors import StoreError, TrainingError
from slicewise.evaluation.evaluate import EvaluateJob, evaluate_stage
from slicewise.files import read_json, write_json
from slicewise.inference.predictor import PredictOptions, Predictor, SliceInput
from slicewise.slices.regions import region_maps
from slicewise.slices.split_file import FILE as SPLIT
from slicewise.slices.store import INDEX
from slicewise.studies.reading import read_study
from slicewise.training.stage import WEIGHTS

CONFIG = EvaluateConfig(bootstrap=100, mc_samples=2, pictured_slices=1)


def job(small_run: SmallRun, config: EvaluateConfig = CONFIG, **places: Path) -> EvaluateJob:
    folders = {
        "store": small_run.data.store.folder,
        "split": small_run.data.folder / "split",
        "weights": small_run.weights,
        "calibration": small_run.calibration,
    }
    return EvaluateJob(**{**folders, **places}, model=MODEL, evaluate=config, gate=GateConfig(min_roc_auc=0.1))


def with_test(small_run: SmallRun, folder: Path, keys: Sequence[str]) -> Path:
    """The small run's split with another test side."""
    shutil.copytree(small_run.data.folder / "split", folder)
    content = read_json(folder / SPLIT)
    sides = {side: [key for key in content[side] if key not in keys] for side in ("train", "val")}
    write_json(folder / SPLIT, content | sides | {"test": list(keys)})
    return folder


def with_studies(small_run: SmallRun, folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """The small run's store with changed entries."""
    shutil.copytree(small_run.data.store.folder, folder)
    content = read_json(folder / INDEX)
    for study in content["studies"]:
        change(study)
    write_json(folder / INDEX, content)
    return folder


def healthy(small_run: SmallRun) -> list[str]:
    return [key for key, study in small_run.data.store.studies.items() if not study.has_tumour]


def finite(value: Any) -> Any:
    """Parsed again by a reader that knows no NaN."""
    return json.loads(json.dumps(value, allow_nan=False))


def test_the_dice_is_that_of_the_served_masks(small_run: SmallRun) -> None:
    """Slice by slice through the Predictor, against the mask file: what a user would measure."""
    predictor = Predictor(small_run.bundle)
    records = {record.study_id: record for record in small_run.data.dataset.records}
    postprocess = small_run.bundle.meta.postprocess
    for judged in small_run.metrics["studies"]:
        entry = small_run.data.store.studies[judged["study"]]
        study = read_study(records[entry.study_id], small_run.data.dataset.root)
        assert study.labels is not None
        masks = np.zeros((3, *study.labels.shape), dtype=bool)
        for z in entry.slices.z:
            image = np.stack([channel[z] for channel in study.channels])
            item = SliceInput(image, study.modalities, study.spacing_mm[1:])
            (answer,) = predictor.predict([item], PredictOptions())
            assert answer.region_probability is not None
            masks[:, z] = answer.region_probability >= small_run.bundle.meta.calibration.region_threshold
        masks = postprocess.apply(masks, study.spacing_mm)
        truth = np.stack([region_maps(plane) for plane in study.labels], axis=1)
        for at, name in enumerate(("WT", "TC", "ET")):
            voxel_ml = float(np.prod(study.spacing_mm)) / 1000
            assert judged[name]["predicted_ml"] == pytest.approx(masks[at].sum() * voxel_ml)
            assert judged[name]["reference_ml"] == pytest.approx(truth[at].sum() * voxel_ml)
            both, either = (masks[at] & truth[at]).sum(), masks[at].sum() + truth[at].sum()
            dice = 2 * both / either if truth[at].any() else None
            assert judged[name]["dice"] == (None if dice is None else pytest.approx(dice))


def test_the_small_run_has_every_section(small_run: SmallRun) -> None:
    metrics = finite(small_run.metrics)
    assert (metrics["format"], metrics["version"]) == ("slicewise-metrics", 2)
    for section in (
        "calibration_figures",
        "decision",
        "uncertainty",
        "explanation",
        "subgroups",
        "postprocess",
        "ood",
    ):
        assert metrics[section], section
    for record in metrics["studies"]:
        assert all((small_run.evaluation / picture["file"]).is_file() for picture in record["pictures"])
    assert any(record["pictures"] for record in metrics["studies"])
    assert metrics["uncertainty"]["mc_samples"] > 0
    assert metrics["explanation"]["sanity"]["cascade"]


def test_one_patient_has_figures_without_intervals(small_run: SmallRun, tmp_path: Path) -> None:
    key = next(key for key, study in small_run.data.store.studies.items() if study.has_tumour)
    metrics = finite(
        evaluate_stage(job(small_run, split=with_test(small_run, tmp_path / "s", [key])), tmp_path / "out")
    )
    dice = metrics["segmentation"]["WT"]["dice"]
    assert dice["value"] is not None
    assert (dice["low"], dice["high"], dice["n"]) == (None, None, 1)
    assert metrics["classification"]["patient"]["figures"]["roc_auc"]["value"] is None


def test_no_tumour_at_all(small_run: SmallRun, tmp_path: Path) -> None:
    keys = healthy(small_run)
    metrics = finite(
        evaluate_stage(job(small_run, split=with_test(small_run, tmp_path / "s", keys)), tmp_path / "out")
    )
    whole = metrics["segmentation"]["WT"]
    assert whole["dice"]["value"] is None
    assert (whole["n_scored"], whole["n_empty_reference"]) == (0, len(keys))
    assert whole["n_false_positive"] == sum(record["WT"]["predicted_ml"] > 0 for record in metrics["studies"])
    figures = metrics["classification"]["slice"]["figures"]
    assert (figures["sensitivity"]["value"], figures["roc_auc"]["value"]) == (None, None)
    assert figures["specificity"]["value"] is not None
    assert metrics["verdict"]["passed"] is False
    assert (tmp_path / "out" / "report.html").is_file()


def test_one_class_only(small_run: SmallRun, tmp_path: Path) -> None:
    def all_tumour(study: dict[str, Any]) -> None:
        study["slices"]["tumour"] = [True] * len(study["slices"]["z"])

    store = with_studies(small_run, tmp_path / "store", all_tumour)
    metrics = finite(evaluate_stage(job(small_run, store=store), tmp_path / "out"))
    figures = metrics["classification"]["slice"]["figures"]
    assert (figures["specificity"]["value"], figures["roc_auc"]["value"]) == (None, None)
    assert figures["sensitivity"]["value"] is not None


def test_no_study_has_a_mask(small_run: SmallRun, tmp_path: Path) -> None:
    def unlabelled(study: dict[str, Any]) -> None:
        study.update(label_xxh3=None, known_regions=[])
        study["slices"]["tumour"] = [None] * len(study["slices"]["z"])

    store = with_studies(small_run, tmp_path / "store", unlabelled)
    metrics = finite(evaluate_stage(job(small_run, store=store), tmp_path / "out"))
    assert metrics["classification"]["slice"]["n"] == 0
    assert metrics["segmentation"]["WT"]["n_unknown"] == len(metrics["studies"])
    assert all(record["WT"]["dice"] is None for record in metrics["studies"])
    assert all(record["tumour_probability"] is not None for record in metrics["studies"])
    assert metrics["verdict"]["passed"] is False


def test_without_uncertainty_and_pictures(small_run: SmallRun, tmp_path: Path) -> None:
    plain = EvaluateConfig(bootstrap=100, mc_samples=0, pictured_slices=0)
    metrics = evaluate_stage(job(small_run, plain), tmp_path / "out")
    assert metrics["uncertainty"] is None
    assert not any(record["pictures"] for record in metrics["studies"])
    assert metrics["segmentation"] == small_run.metrics["segmentation"]


def test_an_ensemble_adds_to_the_uncertainty_alone(small_run: SmallRun, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(small_run.weights, other)
    weights = load_file(other / WEIGHTS)
    save_file({name: 0.9 * value for name, value in weights.items()}, other / WEIGHTS)
    changes = {"pictured_slices": 0, "explain_method": "gradcam"}
    config = CONFIG.model_copy(update=changes | {"ensemble": (other,), "mirror": True})
    alone = evaluate_stage(job(small_run, CONFIG.model_copy(update=changes)), tmp_path / "alone")
    joined = evaluate_stage(job(small_run, config), tmp_path / "joined")
    assert joined["segmentation"] == alone["segmentation"]
    assert (joined["uncertainty"]["networks"], joined["uncertainty"]["mirror"]) == (2, True)
    assert joined["uncertainty"]["regions"] != alone["uncertainty"]["regions"]
    with pytest.raises(TrainingError, match="ensemble"):
        evaluate_stage(job(small_run, config.model_copy(update={"ensemble": (small_run.weights,)})), tmp_path / "no")


def test_only_so_many_studies_are_pictured(small_run: SmallRun, tmp_path: Path) -> None:
    few = CONFIG.model_copy(update={"pictured_studies": 1})
    metrics = evaluate_stage(job(small_run, few), tmp_path / "out")
    shown = [record["study"] for record in metrics["studies"] if record["pictures"]]
    assert len(shown) == 1
    assert [path.name for path in (tmp_path / "out" / "pictures").iterdir()] == shown


def test_a_diverged_network_is_named(small_run: SmallRun, tmp_path: Path) -> None:
    shutil.copytree(small_run.weights, tmp_path / "weights")
    weights = load_file(tmp_path / "weights" / WEIGHTS)
    name = next(name for name in weights if name.startswith("head.") and name.endswith("bias"))
    save_file(weights | {name: weights[name] * float("nan")}, tmp_path / "weights" / WEIGHTS)
    with pytest.raises(TrainingError, match="not finite"):
        evaluate_stage(job(small_run, weights=tmp_path / "weights"), tmp_path / "out")
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_a_missing_calibration_is_named(small_run: SmallRun, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"calibration\.json"):
        evaluate_stage(job(small_run, calibration=tmp_path), tmp_path / "out")


def test_a_calibration_of_other_regions_is_named(small_run: SmallRun, tmp_path: Path) -> None:
    content = read_json(small_run.calibration / "calibration.json")
    regions = content["calibration"]["regions"]
    regions["LIVER"] = regions.pop("ET")
    write_json(tmp_path / "calibration.json", content)
    with pytest.raises(StoreError, match=r"calibration\.json is no calibration"):
        evaluate_stage(job(small_run, calibration=tmp_path), tmp_path / "out")
