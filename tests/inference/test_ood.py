"""The out-of-distribution score end to end, with the session's small network: what it flags, and in which bundle."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from organs import ORGANS, PICTURES, inverted_head, negative
from pydantic import ValidationError
from safetensors.numpy import load_file, save_file
from sklearn.metrics import roc_auc_score
from small_run import MODEL, SIZE, SmallRun

from slicewise.config import SliceConfig
from slicewise.errors import BundleError, StoreError
from slicewise.evaluation.ood import fit_ood, read_ood
from slicewise.evaluation.ood_calibrate import calibrate, hold_out
from slicewise.evaluation.ood_fit import fit_typical
from slicewise.evaluation.ood_report import SideScores, ood_section, score_test, study_scores
from slicewise.evaluation.ood_slices import Sample
from slicewise.files import sha256_file, write_json
from slicewise.inference.bundle import load_bundle, write_bundle
from slicewise.inference.ood import OOD_FILE, PARTS, OodRecord, OodScorer, score_parts
from slicewise.inference.ood_model import load_model, save_model
from slicewise.inference.predictor import Prediction, PredictOptions, Predictor, SliceInput
from slicewise.inference.slice_statistics import INTENSITY, SHAPE, Described, describe_slices, pooled_width
from slicewise.slices.foreground import find_foreground
from slicewise.studies.reading import read_study

FOUR = ("flair", "t1", "t1ce", "t2")
CLASSIFY = PredictOptions(("classify",))


@pytest.fixture(scope="module")
def predictor(small_run: SmallRun) -> Predictor:
    return Predictor.load(small_run.bundle.folder, "cpu", threads=1)


@pytest.fixture(scope="module")
def held_out(small_run: SmallRun) -> list[SliceInput]:
    """All slices of the test studies, with all modalities."""
    data = small_run.data
    records = {record.study_id: record for record in data.dataset.records}
    items = []
    for key in data.split.test:
        entry = data.store.studies[key]
        study = read_study(records[entry.study_id], data.dataset.root)
        items += [SliceInput(study.image[:, s.z], study.modalities, study.spacing_mm[1:]) for s in entry.slices]
    return items


def predict(predictor: Predictor, items: list[SliceInput], options: PredictOptions = CLASSIFY) -> list[Prediction]:
    outcomes = predictor.predict(items, options)
    assert all(isinstance(outcome, Prediction) for outcome in outcomes)
    return [outcome for outcome in outcomes if isinstance(outcome, Prediction)]


def scores(predictor: Predictor, items: list[SliceInput]) -> NDArray[np.float64]:
    return np.array([answer.ood_score for answer in predict(predictor, items)])


def flagged(predictor: Predictor, items: list[SliceInput]) -> float:
    return float(np.mean([answer.ood_flag for answer in predict(predictor, items)]))


def alone(items: list[SliceInput], name: str, called: str | None = None) -> list[SliceInput]:
    """One sequence of each slice, given under its own or another name."""
    return [SliceInput(item.image[[item.modalities.index(name)]], (called or name,), item.pixel_mm) for item in items]


def changed(items: list[SliceInput], change: Callable[[NDArray[Any]], NDArray[Any]]) -> list[SliceInput]:
    return [replace(item, image=change(item.image)) for item in items]


def test_held_out_phantoms_are_seldom_flagged(predictor: Predictor, held_out: list[SliceInput]) -> None:
    """Aim 5 %; with six held-out patients it cannot be exact."""
    assert flagged(predictor, held_out) <= 0.2
    assert 0.2 < scores(predictor, held_out).mean() < 0.8


@pytest.mark.parametrize("name", ["flair", "t1", "t1ce", "t2"])
def test_a_missing_modality_alone_is_no_reason_to_flag(
    name: str, predictor: Predictor, held_out: list[SliceInput]
) -> None:
    items = alone(held_out, name)
    assert flagged(predictor, items) <= 0.25
    assert scores(predictor, items).mean() < 0.8


@pytest.mark.parametrize("name", [*ORGANS, *PICTURES])
def test_what_is_no_brain_is_told_apart(name: str, predictor: Predictor, held_out: list[SliceInput]) -> None:
    """The network is trained anew here, and other processors give other weights: how many of the drawings pass the
    threshold varies by a few, that they score above the heads does not."""
    usual = scores(predictor, held_out)
    draw = (ORGANS | PICTURES)[name]
    drawn = [draw(np.random.default_rng(seed), 64)[None] for seed in range(10)]
    assert flagged(predictor, [SliceInput(plane, ("flair",)) for plane in drawn]) >= 0.7
    assert flagged(predictor, [SliceInput(plane, ("unknown",)) for plane in drawn]) >= 0.7
    four = scores(predictor, [SliceInput(np.concatenate([plane] * 4), FOUR) for plane in drawn])
    assert roc_auc_score([0] * len(usual) + [1] * len(four), [*usual, *four]) >= 0.95


def invert(image: NDArray[Any]) -> NDArray[Any]:
    planes = image.astype(np.float32)
    return inverted_head(planes, find_foreground(list(planes), SliceConfig().foreground_fraction)[0] > 0)


def test_negatives_are_flagged(predictor: Predictor, held_out: list[SliceInput]) -> None:
    assert flagged(predictor, changed(held_out, negative)) > 0.9


@pytest.mark.parametrize(
    ("least", "change"),
    [
        (0.8, invert),
        (0.8, lambda image: np.rot90(image, axes=(1, 2))),
        (0.55, lambda image: image[:, ::-1]),
    ],
    ids=["inverted", "on its side", "upside down"],
)
def test_wrongly_shown_brains_score_higher(
    least: float, change: Callable[[NDArray[Any]], NDArray[Any]], predictor: Predictor, held_out: list[SliceInput]
) -> None:
    """Upside down is told least well: seen from above, a brain has almost the same outline both ways."""
    values = np.r_[scores(predictor, held_out), scores(predictor, changed(held_out, change))]
    assert roc_auc_score(np.repeat([0, 1], len(held_out)), values) > least


def test_the_wrong_sequence_scores_higher_and_its_mirror_image_does_not(
    predictor: Predictor, held_out: list[SliceInput]
) -> None:
    truth = np.repeat([0, 1], len(held_out))
    flair = scores(predictor, alone(held_out, "flair"))
    t2 = scores(predictor, alone(held_out, "t2", called="flair"))
    mirrored = scores(predictor, changed(alone(held_out, "flair"), lambda image: image[:, :, ::-1]))
    assert roc_auc_score(truth, np.r_[flair, t2]) > 0.8
    assert abs(roc_auc_score(truth, np.r_[flair, mirrored]) - 0.5) < 0.2


def test_a_score_does_not_hang_on_batch_mates_or_on_what_else_is_asked(
    predictor: Predictor, held_out: list[SliceInput]
) -> None:
    noise = SliceInput(PICTURES["noise"](np.random.default_rng(0), 50)[None], ("t2",))
    items = [held_out[0], noise, *alone(held_out[5:7], "t1"), held_out[9]]
    together = predict(predictor, items)
    for item, found in zip(items, together, strict=True):
        (single,) = predict(predictor, [item], PredictOptions(("segment", "explain")))
        assert single.ood_score == pytest.approx(found.ood_score, abs=1e-4)
        assert single.ood_parts == pytest.approx(found.ood_parts, abs=1e-3)
    assert [answer.ood_score for answer in predict(predictor, items)] == [answer.ood_score for answer in together]


def test_scores_and_parts_are_what_they_say(predictor: Predictor, held_out: list[SliceInput]) -> None:
    threshold = predictor.meta.ood.threshold
    for answer in predict(predictor, held_out):
        assert answer.ood_score is not None
        assert 0 <= answer.ood_score <= 1
        assert answer.ood_flag is bool(np.float32(answer.ood_score) > np.float32(threshold))
        assert list(answer.ood_parts) == list(PARTS)
        assert all(value >= -1e-9 for value in answer.ood_parts.values())


def test_evaluation_and_predictor_give_the_same_scores(
    small_run: SmallRun, predictor: Predictor, held_out: list[SliceInput]
) -> None:
    data = small_run.data
    store, split = data.store.folder, data.folder / "split"
    found = score_test(store, split, small_run.weights, MODEL, small_run.calibration)
    assert found is not None
    np.testing.assert_allclose(found.scores, scores(predictor, held_out), atol=1e-4)
    section = small_run.metrics["ood"]
    assert section["slices"] == len(held_out)
    assert section["figures"]["flagged"]["n"] == len(set(found.groups))
    assert {record["study"]: record["ood_score"] for record in small_run.metrics["studies"]} == pytest.approx(
        study_scores(found)
    )


def test_the_section_by_hand(small_run: SmallRun) -> None:
    """Patient a: two of four slices over 0.9; b: none of two; c, of another source: its only one."""
    found = SideScores(
        np.array([0.95, 0.99, 0.1, 0.9, 0.2, 0.3, 1.0], dtype=np.float32),
        ["s1", "s1", "s2", "s2", "s3", "s3", "s4"],
        ["a", "a", "a", "a", "b", "b", "c"],
        ["x"] * 6 + ["y"],
    )
    record = OodRecord(threshold=0.9)
    section = ood_section(found, record, small_config())
    assert section["figures"]["flagged"]["value"] == pytest.approx((0.5 + 0 + 1) / 3)
    assert section["by_source"]["x"]["flagged"]["value"] == pytest.approx(0.25)
    assert section["by_source"]["y"]["flagged"] == {"value": 1.0, "low": None, "high": None, "n": 1}
    assert study_scores(found) == pytest.approx({"s1": 0.97, "s2": 0.5, "s3": 0.25, "s4": 1.0})
    json.dumps(section, allow_nan=False)
    assert ood_section(None, OodRecord(reason="none"), small_config())["reason"] == "none"
    nothing = SideScores(np.zeros(0, dtype=np.float32), [], [], [])
    assert ood_section(nothing, record, small_config())["reason"] == "the test split has no slices"


def small_config() -> Any:
    from slicewise.config import EvaluateConfig

    return EvaluateConfig(bootstrap=100)


def test_the_record_of_the_bundle(small_run: SmallRun) -> None:
    record, split = small_run.bundle.meta.ood, small_run.data.split
    assert record.threshold is not None
    assert record == read_ood(small_run.calibration)
    assert OOD_FILE in small_run.bundle.meta.files
    assert (record.train_patients, record.validation_patients) == (len(split.train), len(split.val))
    assert record.seen == ("flair", "t1", "t1ce", "t2")
    assert record.flagged is not None
    assert 0 <= record.flagged <= record.false_alarm == 0.05


def test_fitting_again_gives_the_same_file(small_run: SmallRun, tmp_path: Path) -> None:
    data = small_run.data
    record = fit_ood(data.store.folder, data.folder / "split", small_run.weights, MODEL, tmp_path)
    assert record == small_run.bundle.meta.ood
    assert sha256_file(tmp_path / OOD_FILE) == sha256_file(small_run.calibration / OOD_FILE)


def test_without_validation_slices_there_is_a_reason_and_no_score(small_run: SmallRun, tmp_path: Path) -> None:
    data = small_run.data
    (tmp_path / OOD_FILE).write_bytes(b"of an earlier run")
    write_json(tmp_path / "split.json", data.split.model_copy(update={"val": ()}).model_dump(mode="json"))
    record = fit_ood(data.store.folder, tmp_path, small_run.weights, MODEL, tmp_path)
    assert record.threshold is None
    assert "validation" in record.reason
    assert not (tmp_path / OOD_FILE).exists()
    assert score_test(data.store.folder, data.folder / "split", small_run.weights, MODEL, tmp_path) is None


def test_a_bundle_without_a_score_predicts_none(
    small_run: SmallRun, held_out: list[SliceInput], tmp_path: Path
) -> None:
    meta = small_run.bundle.meta.model_copy(update={"ood": OodRecord(reason="not fitted"), "files": {}})
    bundle = write_bundle(tmp_path / "b", small_run.bundle.network().state_dict(), meta)
    (answer,) = predict(Predictor(bundle, "cpu"), held_out[:1])
    assert (answer.ood_score, answer.ood_flag, answer.ood_parts) == (None, None, {})
    older = json.loads((tmp_path / "b" / "bundle.json").read_text())
    del older["ood"]
    (tmp_path / "b" / "bundle.json").write_text(json.dumps(older))
    assert load_bundle(tmp_path / "b").meta.ood.threshold is None


def test_a_record_needs_a_threshold_or_a_reason(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="reason"):
        OodRecord()
    with pytest.raises(StoreError, match=r"ood\.json.*calibrate"):
        read_ood(tmp_path)
    (tmp_path / "ood.json").write_text("{}")
    with pytest.raises(StoreError, match=r"ood\.json is damaged"):
        read_ood(tmp_path)


def test_a_bundle_that_lacks_its_file_is_refused(small_run: SmallRun, tmp_path: Path) -> None:
    weights = small_run.bundle.network().state_dict()
    with pytest.raises(BundleError, match=r"lists no ood\.safetensors"):
        write_bundle(tmp_path / "b", weights, small_run.bundle.meta)


def with_arrays(small_run: SmallRun, tmp_path: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """A copy of the bundle with another ``ood.safetensors``, whose digest is right."""
    folder = Path(shutil.copytree(small_run.bundle.folder, tmp_path / "bundle"))
    arrays = load_file(folder / OOD_FILE)
    change(arrays)
    save_file(arrays, folder / OOD_FILE)
    meta = json.loads((folder / "bundle.json").read_text())
    size, digest = (folder / OOD_FILE).stat().st_size, sha256_file(folder / OOD_FILE)
    meta["files"][OOD_FILE] = {"bytes": size, "sha256": digest}
    (folder / "bundle.json").write_text(json.dumps(meta))
    return folder


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda arrays: arrays.pop("shape.whiten"), r"shape\.whiten"),
        (lambda arrays: arrays.update({"total.3": arrays["total.3"][:-4]}), "knots"),
        (lambda arrays: arrays.update({"total.3": arrays["total.3"] * np.float32(np.nan)}), "knots"),
        (lambda arrays: arrays.update({"channels.view": arrays["channels.view"][:, :-1]}), r"channels\.view"),
        (lambda arrays: [arrays.update({k: v[:3]}) for k, v in arrays.items() if "channels" in k], "features"),
        (
            lambda arrays: arrays.update(
                {k: v[..., :-2] if "centres" in k else v[:-2] for k, v in arrays.items() if k.startswith("features.")}
            ),
            "another network",
        ),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    change: Callable[[dict[str, Any]], Any], named: str, small_run: SmallRun, tmp_path: Path
) -> None:
    with pytest.raises(BundleError, match=named) as caught:
        Predictor.load(with_arrays(small_run, tmp_path, change))
    assert caught.value.cure


def test_a_damaged_file_is_noticed(small_run: SmallRun, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(small_run.bundle.folder, tmp_path / "bundle"))
    content = bytearray((folder / OOD_FILE).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / OOD_FILE).write_bytes(content)
    with pytest.raises(BundleError, match=r"ood\.safetensors was changed"):
        load_bundle(folder)
    (folder / OOD_FILE).write_bytes(content[:100])
    with pytest.raises(BundleError, match="missing or damaged"):
        load_model(folder / OOD_FILE, 4, 960)
    (folder / OOD_FILE).unlink()
    with pytest.raises(BundleError, match=r"ood\.safetensors is missing"):
        load_bundle(folder)


def test_arrays_read_back_the_same(predictor: Predictor, tmp_path: Path) -> None:
    scorer = predictor.bundle.ood(predictor.network)
    assert scorer is not None
    save_model(scorer.model, tmp_path / OOD_FILE)
    again = load_model(tmp_path / OOD_FILE, 4, pooled_width(predictor.network.encoder.widths))
    for name, array in vars(scorer.model.channels).items():
        np.testing.assert_array_equal(array, vars(again.channels)[name])
    assert [one.n for one in again.total] == [one.n for one in scorer.model.total]
    np.testing.assert_array_equal(again.drift["score"].knots, scorer.model.drift["score"].knots)


def test_a_modality_that_training_never_saw_is_flagged(predictor: Predictor, held_out: list[SliceInput]) -> None:
    scorer = predictor.bundle.ood(predictor.network)
    assert scorer is not None
    channels = replace(scorer.model.channels, seen=np.array([1.0, 1.0, 1.0, 0.0]))
    blind = OodScorer(replace(scorer.model, channels=channels), float(scorer.threshold))
    images = np.random.default_rng(0).normal(0, 1, (2, 4, SIZE, SIZE)).astype(np.float32)
    images[1, 3] = 0
    pooled = np.zeros((2, pooled_width(predictor.network.encoder.widths)), dtype=np.float32)
    with_t2, without = blind.score(images, pooled)
    assert (with_t2.score, with_t2.flag) == (1.0, True)
    expected = scorer.score(images, pooled)[1]
    assert without == expected


def test_the_score_is_the_parts_sum_among_slices_with_the_same_modalities(
    predictor: Predictor, held_out: list[SliceInput]
) -> None:
    scorer = predictor.bundle.ood(predictor.network)
    assert scorer is not None
    images = np.random.default_rng(1).normal(0, 1, (1, 4, SIZE, SIZE)).astype(np.float32)
    images[0, [1, 3]] = 0  # flair and t1ce: bits 0 and 2, the set of number 5
    parts = np.array([[0.5, 0.4, 0.3, 0.2]])
    found = score_parts(scorer.model, describe_slices(images).present, parts)
    assert found[0] == np.float32(1 - np.exp(scorer.model.total[5].log_p(np.array([1.4]))[0]))


def test_references_for_drift_are_in_the_bundle(predictor: Predictor) -> None:
    scorer = predictor.bundle.ood(predictor.network)
    assert scorer is not None
    drift: Mapping[str, Any] = scorer.model.drift
    assert set(drift) == {"score", *PARTS}
    middle = drift["score"].knots[50]
    assert 0.3 < middle < 0.7  # of slices that are typical, half score more than half


def described_at_random(rng: np.random.Generator, n: int) -> Described:
    intensity = rng.normal(0, 1, (n, 4, len(INTENSITY))).astype(np.float32)
    return Described(intensity, rng.normal(0, 1, (n, len(SHAPE))).astype(np.float32), np.ones((n, 4), dtype=bool))


def test_a_modality_that_training_lacks_is_neither_fitted_nor_calibrated() -> None:
    """Training slices without T2, validation slices with it: these are left out, and cost no false alarms."""
    rng = np.random.default_rng(0)
    described = described_at_random(rng, 120)
    described.present[:80, 3] = False
    sample = Sample(described, rng.normal(0, 1, (120, 12)).astype(np.float32), np.arange(120) // 10)
    train, validation = sample.take(np.arange(80)), sample.take(np.arange(80, 120))
    typical = fit_typical(train, train)
    assert typical.channels.seen.tolist() == [1, 1, 1, 0]
    held_out = hold_out(typical, train, train, validation)
    assert not held_out.distances.present[:, 3].any()
    assert set(held_out.groups.tolist()) == set(range(8))  # of the validation patients all slices have T2
    model = calibrate(typical, held_out)
    found = model.distances(validation.described, validation.pooled)
    assert (score_parts(model, found.present, model.parts(found)) == 1).all()


def test_training_patients_are_judged_by_what_was_fitted_without_them() -> None:
    """One patient lies apart. Measured by a model that knows it, it is nearer than by one that does not."""
    rng = np.random.default_rng(1)
    described = described_at_random(rng, 100)
    described.intensity[:20] += 3
    sample = Sample(described, rng.normal(0, 1, (100, 12)).astype(np.float32), np.arange(100) // 20)
    typical = fit_typical(sample, sample)
    within = typical.distances(described, sample.pooled).intensity[:20].mean()
    held_out = hold_out(typical, sample, sample, sample.take(np.zeros(0, dtype=np.intp)))
    assert len(held_out.groups) == 100
    assert held_out.distances.intensity[held_out.groups == 0].mean() > within + 1
    np.testing.assert_allclose(held_out.weights, 1 / 20)
