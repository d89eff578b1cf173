"""The bundle and the Predictor."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_run import PREPROCESS, SmallRun

from slicewise.errors import BundleError, InputError
from slicewise.evaluation.outputs import collect_outputs
from slicewise.inference.bundle import load_bundle, write_bundle
from slicewise.inference.ood import OOD_FILE
from slicewise.inference.predictor import TASKS, PredictOptions, Predictor, SliceInput
from slicewise.slices.transform import prepare_slice
from slicewise.studies.reading import read_study


@pytest.fixture(scope="module")
def predictor(small_run: SmallRun) -> Predictor:
    return Predictor.load(small_run.bundle.folder)


def raw_slices(small_run: SmallRun) -> tuple[list[SliceInput], np.ndarray]:
    """The raw slices of the first test study that the store kept, and what it kept of them."""
    data = small_run.data
    entry = data.store.studies[data.split.test[0]]
    record = next(r for r in data.dataset.records if r.study_id == entry.study_id)
    study = read_study(record, data.dataset.root)
    items = [SliceInput(study.image[:, s.z], study.modalities, study.spacing_mm[1:]) for s in entry.slices]
    return items, data.store.images(entry.key)


def test_store_and_predictor_prepare_the_same_bytes(small_run: SmallRun) -> None:
    items, stored = raw_slices(small_run)
    config = small_run.bundle.meta.preprocessing
    assert config == PREPROCESS.slice
    for item, kept in zip(items, stored, strict=True):
        assert prepare_slice(item.image, item.modalities, config, item.pixel_mm).image.tobytes() == kept.tobytes()


def test_predictor_says_what_evaluation_judged(small_run: SmallRun, predictor: Predictor) -> None:
    data = small_run.data
    outputs = collect_outputs(
        data.store.folder, data.folder / "split", small_run.weights, predictor.meta.architecture, "test"
    )
    items, _ = raw_slices(small_run)
    answers = predictor.predict(items)
    expected = predictor.meta.calibration.tumour.apply(outputs.logits)
    for row, probability in zip(outputs.rows, expected, strict=True):
        if row < len(answers):
            assert answers[row].tumor_probability == pytest.approx(float(probability), abs=1e-4)


def test_a_bad_item_fails_alone(small_run: SmallRun, predictor: Predictor) -> None:
    items, _ = raw_slices(small_run)
    bad = SliceInput(np.full((1, 9, 9), np.nan), ("flair",))
    alone = predictor.predict(items[:2])
    mixed = predictor.predict([items[0], bad, items[1]])
    assert isinstance(mixed[1], InputError)
    for a, b in zip(alone, (mixed[0], mixed[2]), strict=True):
        assert a.tumor_probability == pytest.approx(b.tumor_probability, abs=1e-5)
        np.testing.assert_array_equal(a.mask, b.mask)
        assert a.mask.shape == (3, 48, 48)


def test_maps_stay_in_the_head_and_uncertainty_varies(small_run: SmallRun, predictor: Predictor) -> None:
    items, _ = raw_slices(small_run)
    item = items[len(items) // 2]
    first = predictor.predict([item], PredictOptions(TASKS))[0]
    again = predictor.predict([item], PredictOptions(TASKS))[0]
    outside = ~prepare_slice(item.image, item.modalities, PREPROCESS.slice, item.pixel_mm).foreground
    for plane in (first.gradcam, first.uncertainty, first.region_probability[0]):
        assert not plane[outside].any()
    one = predictor.predict([item], PredictOptions(TASKS, n_mc_samples=1))[0]
    assert np.abs(one.uncertainty - first.uncertainty).max() > 1e-4
    np.testing.assert_array_equal(first.uncertainty, again.uncertainty)


def test_conditional_decoding_changes_no_decoded_answer(small_run: SmallRun, predictor: Predictor) -> None:
    items, _ = raw_slices(small_run)
    plain = predictor.predict(items)
    cut = float(np.median([answer.tumor_probability for answer in plain]))
    found = predictor.predict(items, PredictOptions(threshold=cut, conditional=True))
    assert {answer.decoded for answer in found} == {True, False}
    for a, b in zip(plain, found, strict=True):
        expected = a.mask if b.decoded else np.zeros_like(a.mask)
        assert (b.mask != expected).mean() < 1e-3


def test_regions_that_no_mask_taught_are_empty(small_run: SmallRun, tmp_path: Path) -> None:
    weights = small_run.bundle.network().state_dict()
    meta = small_run.bundle.meta.model_copy(update={"trained_regions": ("WT",), "files": {}})
    items, _ = raw_slices(small_run)
    copies = [small_run.bundle.folder / OOD_FILE]
    answers = Predictor(write_bundle(tmp_path / "b", weights, meta, copies=copies)).predict(items)
    assert any(answer.mask[0].any() for answer in answers)
    assert not any(answer.mask[1:].any() or answer.region_probability[1:].any() for answer in answers)
    assert answers[0].trained_regions == ("WT",)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_changed_byte_is_noticed(small_run: SmallRun, tmp_path: Path, data: st.DataObject) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(small_run.bundle.folder, folder, dirs_exist_ok=True)
    name = data.draw(st.sampled_from(["model.safetensors", "model_card.md"]))
    content = bytearray((folder / name).read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    (folder / name).write_bytes(content)
    with pytest.raises(BundleError, match=name):
        load_bundle(folder)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"version": 3}, "version"),
        ({"version": 1}, "reads version 2"),
        ({"format": "other"}, "format"),
        ({"files": {}}, "lists no"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_other_bundles_are_refused(small_run: SmallRun, tmp_path: Path, change: dict, word: str) -> None:
    folder = tmp_path / "b"
    shutil.copytree(small_run.bundle.folder, folder)
    meta = json.loads((folder / "bundle.json").read_text())
    (folder / "bundle.json").write_text(json.dumps(meta | change))
    with pytest.raises(BundleError, match=word) as caught:
        load_bundle(folder)
    assert caught.value.cure


def test_a_bundle_cannot_point_outside_itself(small_run: SmallRun, tmp_path: Path) -> None:
    folder = tmp_path / "b"
    shutil.copytree(small_run.bundle.folder, folder)
    meta = json.loads((folder / "bundle.json").read_text())
    meta["files"]["../secret"] = {"bytes": 1, "sha256": "0"}
    (folder / "bundle.json").write_text(json.dumps(meta))
    with pytest.raises(BundleError, match="outside"):
        load_bundle(folder)


@pytest.mark.parametrize("options", [{"tasks": ("draw",)}, {"tasks": ()}, {"threshold": 2.0}, {"n_mc_samples": 51}])
def test_options_are_checked(options: dict) -> None:
    with pytest.raises(InputError):
        PredictOptions(**options)
