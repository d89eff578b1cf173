"""A whole study: the same as evaluation judges, and what is wrong with one slice stays with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from small_run import MODEL, PREPROCESS, SmallRun

from slicewise.config import DownloadConfig, SplitConfig
from slicewise.errors import InputError, TooLargeError
from slicewise.evaluation.collector import StudyCollector
from slicewise.evaluation.outputs import collect_outputs
from slicewise.evaluation.study_volume import StudyOutputs, restore_study
from slicewise.inference.postprocess import PostProcess
from slicewise.inference.predictor import Prediction, PredictOptions, Predictor, SliceInput
from slicewise.inference.restore import trained_mask
from slicewise.inference.study import StudySettings, predict_study
from slicewise.inference.study_mask import write_study_mask
from slicewise.slices.build import build_store
from slicewise.slices.planes import cut
from slicewise.slices.regions import region_maps
from slicewise.slices.split import load_split, split_store
from slicewise.slices.store import SliceStore
from slicewise.studies.acquire import acquire
from slicewise.studies.dataset import Dataset
from slicewise.studies.nifti import load_nifti
from slicewise.studies.orientation import to_display
from slicewise.studies.reading import read_study
from slicewise.studies.study import Study


@pytest.fixture(scope="module")
def predictor(small_run: SmallRun) -> Predictor:
    return Predictor(small_run.bundle, "cpu")


@pytest.fixture(scope="module")
def settings(small_run: SmallRun) -> StudySettings:
    return StudySettings.of(small_run.bundle.meta)


@pytest.fixture(scope="module")
def study(small_run: SmallRun) -> Study:
    judged = next(record for record in small_run.metrics["studies"] if record["tumour_true"])
    return read_of(small_run.data.dataset, small_run.data.store, judged["study"])


def read_of(dataset: Dataset, store: SliceStore, key: str) -> Study:
    record = next(record for record in dataset.records if record.study_id == store.studies[key].study_id)
    return read_study(record, dataset.root)


def changed(study: Study, change: Sequence[tuple[int, float]]) -> Study:
    """The study with some slices set to a value, as float32."""
    channels = tuple(channel.astype(np.float32) for channel in study.channels)
    for index, value in change:
        for channel in channels:
            channel[index] = value
    return dataclasses.replace(study, channels=channels)


def test_a_study_is_as_evaluation_judged_it(
    small_run: SmallRun, predictor: Predictor, settings: StudySettings
) -> None:
    for judged in small_run.metrics["studies"]:
        study = read_of(small_run.data.dataset, small_run.data.store, judged["study"])
        found = predict_study(study, predictor.predict, settings)
        entry = small_run.data.store.studies[judged["study"]]
        assert [record.index for record in found.slices if record.tumor_probability is not None] == list(
            entry.slices.z
        )
        assert found.tumor_probability == pytest.approx(judged["tumour_probability"], abs=1e-5)
        assert sum(bool(record.tumor_label) for record in found.slices) == judged["tumour_slices_called"]
        assert found.measures is not None
        assert found.measures.laterality.model_dump(mode="json") == judged["laterality"]
        for name, region in found.measures.regions.items():
            assert region.volume_ml == pytest.approx(judged[name]["predicted_ml"])
            assert region.slices == judged[name]["slices"]
            areas = sum(record.area_mm2[name] for record in found.slices if record.area_mm2)
            assert areas * study.spacing_mm[0] / 1000 == pytest.approx(region.volume_ml)


def test_a_real_scan_is_as_evaluation_judges_it(
    small_run: SmallRun, predictor: Predictor, settings: StudySettings, shared_data: Path, tmp_path: Path
) -> None:
    """Masks voxel for voxel, by the two ways that share only the slice's own preparation."""
    dataset = acquire([str(shared_data / "brats")], tmp_path / "data", DownloadConfig(max_studies=3), 0)
    store = build_store(dataset.root, tmp_path / "store", PREPROCESS, 0)
    split_store(tmp_path / "store", tmp_path / "split", SplitConfig(fractions=(0.34, 0.33, 0.33)), 0)
    kept: list[StudyOutputs] = []
    calibration = settings.calibration
    collector = StudyCollector(load_split(tmp_path / "split").test, calibration, kept.append)
    collect_outputs(store.folder, tmp_path / "split", small_run.weights, MODEL, "test", visit=collector)
    collector.finish()
    trained = trained_mask(settings.trained_regions)
    drawn = 0
    for outputs in kept:
        volume = restore_study(store, outputs, calibration, trained)
        expected = settings.postprocess.apply(volume.predicted, volume.spacing_mm)
        study = read_of(dataset, store, outputs.key)
        found = predict_study(study, predictor.predict, settings)
        assert found.mask is not None
        assert found.mask.shape == (3, *study.channels[0].shape)
        assert np.count_nonzero(found.mask != expected) <= 1e-5 * expected.size
        assert found.tumor_probability == pytest.approx(calibration.tumour.apply(outputs.tumour).max(), abs=1e-4)
        drawn += int(np.count_nonzero(volume.predicted))
    assert drawn > 0


def test_the_mask_lies_on_the_scan(
    predictor: Predictor, settings: StudySettings, study: Study, small_run: SmallRun, tmp_path: Path
) -> None:
    found = predict_study(study, predictor.predict, settings)
    assert study.grid is not None
    assert found.mask is not None
    write_study_mask(found, study.grid, tmp_path / "mask.nii.gz")
    written = load_nifti(tmp_path / "mask.nii.gz", "x")
    scan = load_nifti(small_run.data.dataset.root / next(iter(study.record.images.values()))[0], "x")
    np.testing.assert_allclose(written.affine, scan.affine, atol=1e-5)
    assert (written.data.shape, written.codes) == (scan.data.shape, scan.codes)
    shown = np.stack([region_maps(plane) for plane in to_display(written.data, written.affine)], axis=1)
    nested = found.mask.astype(bool)
    expected = np.stack([nested.any(axis=0), nested[1:].any(axis=0), nested[2]])
    np.testing.assert_array_equal(shown, expected)
    assert expected.any()


def test_a_slice_that_is_wrong_fails_alone(predictor: Predictor, settings: StudySettings, study: Study) -> None:
    plain = predict_study(changed(study, []), predictor.predict, settings)
    found = predict_study(changed(study, [(7, np.nan)]), predictor.predict, settings)
    (failure,) = found.failures
    assert (failure.index, failure.tumor_probability, failure.area_mm2) == (7, None, None)
    assert failure.error is not None
    assert "NaN" in failure.error.message
    for one, other in zip(plain.slices, found.slices, strict=True):
        if one.index != 7 and one.tumor_probability is not None:
            assert other.tumor_probability == pytest.approx(one.tumor_probability, abs=1e-5)


def test_a_slice_that_the_server_refuses_fails_alone(
    predictor: Predictor, settings: StudySettings, study: Study
) -> None:
    refused = TooLargeError("too large", "send less")

    def predict(items: Sequence[SliceInput], options: PredictOptions) -> list[Prediction | InputError]:
        return [refused, *predictor.predict(items[1:], options)]

    found = predict_study(study, predict, settings)
    first = next(record.index for record in found.slices if record.error or record.tumor_probability is not None)
    assert [(record.index, record.error) for record in found.failures] == [(first, refused)]
    assert found.mask is not None
    assert not found.mask[:, first].any()
    with pytest.raises(TooLargeError, match=rf"slice {first}: too large"):
        predict_study(study, lambda items, _: [refused] * len(items), settings)


def test_empty_slices_are_left_out(predictor: Predictor, settings: StudySettings, study: Study) -> None:
    found = predict_study(changed(study, [(7, 0.0), (8, 5.0)]), predictor.predict, settings)
    assert [found.slices[index].tumor_probability for index in (7, 8)] == [None, None]
    assert not found.failures
    with pytest.raises(InputError, match="no slice shows head") as caught:
        predict_study(changed(study, [(index, 0.0) for index in range(16)]), predictor.predict, settings)
    assert caught.value.cure


def test_a_study_of_one_slice(predictor: Predictor, settings: StudySettings, study: Study) -> None:
    one = dataclasses.replace(study, channels=tuple(channel[8:9] for channel in study.channels))
    found = predict_study(one, predictor.predict, settings)
    (answer,) = predictor.predict([SliceInput(study.image[:, 8], study.modalities, study.spacing_mm[1:])])
    assert isinstance(answer, Prediction)
    assert found.tumor_probability == answer.tumor_probability
    assert found.mask is not None
    np.testing.assert_array_equal(found.mask[:, 0], answer.mask)


def test_without_spacing_nothing_is_measured(predictor: Predictor, settings: StudySettings, study: Study) -> None:
    unknown = dataclasses.replace(study, spacing_mm=(1.0, 1.0, 1.0), spacing_known=False)
    found = predict_study(unknown, predictor.predict, settings)
    assert found.measures is None
    assert all(record.area_mm2 is None for record in found.slices)
    assert found.mask is not None
    for sizes in ((0.0, 1.0, 1.0), (1.0, float("nan"), 1.0)):
        with pytest.raises(InputError, match="spacing"):
            predict_study(dataclasses.replace(study, spacing_mm=sizes), predictor.predict, settings)


def test_modalities_of_the_study(predictor: Predictor, settings: StudySettings, study: Study) -> None:
    only = dataclasses.replace(study, modalities=study.modalities[:1], channels=study.channels[:1])
    assert predict_study(only, predictor.predict, settings).modalities == study.modalities[:1]
    foreign = dataclasses.replace(only, modalities=("swi",))
    with pytest.raises(InputError, match="has only swi") as caught:
        predict_study(foreign, predictor.predict, settings)
    assert "flair" in caught.value.cure
    twice = dataclasses.replace(study, modalities=("flair", "unknown"), channels=study.channels[:2])
    with pytest.raises(InputError, match="names a channel twice"):
        predict_study(twice, predictor.predict, settings)


def test_only_what_is_asked_for(predictor: Predictor, settings: StudySettings, study: Study) -> None:
    told: list[tuple[int, int]] = []
    found = predict_study(
        study, predictor.predict, settings, PredictOptions(("classify",)), lambda *at: told.append(at)
    )
    assert (found.mask, found.measures, found.uncertainty, found.region_probability) == (None,) * 4
    assert told == sorted(told)
    assert told[-1] == (16, 16)
    tasks = ("classify", "segment", "explain", "uncertainty")
    full = predict_study(
        study, predictor.predict, settings, PredictOptions(tasks, n_mc_samples=2), keep_probability=True
    )
    assert full.region_probability is not None
    assert full.uncertainty is not None
    assert full.gradcam is not None
    called = full.region_probability >= settings.calibration.region_threshold
    np.testing.assert_array_equal(full.mask, settings.postprocess.apply(called, study.spacing_mm))
    said = [record for record in full.slices if record.tumor_probability is not None]
    assert all(record.mean_uncertainty is not None and record.mean_uncertainty > 0 for record in said)
    assert full.ood_share == np.mean([record.ood_flag for record in said])


def test_masks_that_need_processing_need_probabilities(
    predictor: Predictor, settings: StudySettings, study: Study
) -> None:
    """A caller over a wire may leave the probability out only where the slices' masks are final."""

    def without(items: Sequence[SliceInput], options: PredictOptions) -> list[Prediction | InputError]:
        return [called(answer) for answer in predictor.predict(items, options)]

    def called(answer: Prediction | InputError) -> Prediction:
        assert isinstance(answer, Prediction)
        assert answer.region_probability is not None
        mask = (answer.region_probability >= settings.calibration.region_threshold).astype(np.uint8)
        return dataclasses.replace(answer, region_probability=None, mask=mask)

    plain = settings.model_copy(update={"postprocess": PostProcess()})
    expected = predict_study(study, predictor.predict, plain).mask
    assert expected is not None
    assert expected.any()
    np.testing.assert_array_equal(predict_study(study, without, plain).mask, expected)
    filling = settings.model_copy(update={"postprocess": PostProcess(fill_holes=True)})
    with pytest.raises(ValueError, match="region_probability"):
        predict_study(study, without, filling)


def test_other_planes_come_back_in_the_study_s_order(study: Study, settings: StudySettings) -> None:
    """Against masks that are known: what ``predict`` says of a slice is a threshold of the slice itself."""
    turned = settings.model_copy(
        update={
            "preprocessing": settings.preprocessing.model_copy(update={"plane": "coronal"}),
            "postprocess": PostProcess(),
        }
    )
    cut_off = float(np.quantile(study.channels[0], 0.9))

    def predict(items: Sequence[SliceInput], options: PredictOptions) -> list[Prediction | InputError]:
        masks = [np.repeat((item.image[:1] > cut_off).astype(np.uint8), 3, axis=0) for item in items]
        return [Prediction(0.5, True, 0.5, mask=mask) for mask in masks]

    found = predict_study(study, predict, turned)
    assert found.mask is not None
    said = np.array([record.tumor_probability is not None for record in found.slices])
    assert len(said) == study.channels[0].shape[1]
    expected = study.channels[0] > cut_off
    cut(expected, "coronal")[~said] = False
    np.testing.assert_array_equal(found.mask[0], expected)


def test_settings_are_read_from_a_bundle_s_json(small_run: SmallRun, settings: StudySettings) -> None:
    assert StudySettings.model_validate(small_run.bundle.meta.model_dump(mode="json")) == settings
