"""``slicewise predict`` and ``explain`` with a bundle: files and folders, item by item."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from small_run import SmallRun

from slicewise import RESEARCH_USE
from slicewise.cli import main
from slicewise.errors import InputError, RunLockedError, SourceError, StudyError, UsageError
from slicewise.inference.predict.explain_file import ExplainJob, explain_file
from slicewise.inference.predict.items import find_items
from slicewise.inference.predict.journal import NAME as JOURNAL
from slicewise.inference.predict.journal import open_journal
from slicewise.inference.predict.model import LocalModel
from slicewise.inference.predict.run import PredictJob, predict_items
from slicewise.inference.predictor import Prediction, PredictOptions, Predictor, SliceInput
from slicewise.inference.study import StudySettings, predict_study
from slicewise.slices.regions import labels_of
from slicewise.studies.orientation import to_display
from slicewise.studies.reading import read_study
from slicewise.studies.study import Study, StudyRecord

# The DICOM writer lies with the tests of the DICOM reader.
sys.path.append(str(Path(__file__).parents[1] / "studies"))
from dicom_writing import write_series


@pytest.fixture(scope="module")
def predictor(small_run: SmallRun) -> Predictor:
    return Predictor(small_run.bundle, "cpu")


@pytest.fixture(scope="module")
def model(predictor: Predictor) -> LocalModel:
    return LocalModel(predictor)


@pytest.fixture(scope="module")
def record(small_run: SmallRun) -> StudyRecord:
    """A phantom with a tumour."""
    judged = next(one for one in small_run.metrics["studies"] if one["tumour_true"])
    study_id = small_run.data.store.studies[judged["study"]].study_id
    return next(one for one in small_run.data.dataset.records if one.study_id == study_id)


@pytest.fixture(scope="module")
def study(small_run: SmallRun, record: StudyRecord) -> Study:
    return read_study(record, small_run.data.dataset.root)


@pytest.fixture(scope="module")
def plane(study: Study) -> np.ndarray:
    """The middle slice of FLAIR as 8 bits."""
    flair = study.channels[study.modalities.index("flair")]
    middle = flair[len(flair) // 2].astype(np.float32)
    return (middle / middle.max() * 255).astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path, plane: np.ndarray, study: Study, record: StudyRecord, small_run: SmallRun) -> Path:
    """One of everything that people have, and what is bad."""
    folder = tmp_path / "scans"
    (folder / "yes").mkdir(parents=True)
    Image.fromarray(plane).save(folder / "grey.png")
    Image.fromarray(plane).convert("RGB").save(folder / "yes" / "colour.PNG")
    Image.fromarray(plane).save(folder / "photo.jpg", quality=95)
    np.save(folder / "array.npy", np.stack([channel[len(channel) // 2] for channel in study.channels]))
    write_series(folder / "dicom", plane[:, :, None].astype(np.int16), spacing=(2.0, 3.0, 5.0))
    root = small_run.data.dataset.root
    for name, files in record.images.items():
        shutil.copy(root / files[0], folder / f"patient_{name}.nii.gz")
    shutil.copy(root / record.labels[0], folder / "patient_seg.nii.gz")
    shutil.copy(root / record.images["flair"][0], folder / "untold.nii.gz")
    (folder / "broken.png").write_bytes((folder / "grey.png").read_bytes()[:100])
    Image.fromarray(np.zeros((40, 40), dtype=np.uint8)).save(folder / "empty.png")
    (folder / "broken.nii.gz").write_bytes((folder / "untold.nii.gz").read_bytes()[:3000])
    (folder / "notes.txt").write_text("no scan")
    return folder


def rows_of(out: Path) -> dict[str, dict[str, str]]:
    with (out / "predictions.csv").open(newline="", encoding="utf-8") as handle:
        return {row["item"]: row for row in csv.DictReader(handle)}


def items_of(out: Path) -> dict[str, Any]:
    content = json.loads((out / "predictions.json").read_text())
    assert content["research_use"] == RESEARCH_USE
    return {item["item"]: item for item in content["items"]}


def lines_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / JOURNAL).read_text().splitlines()]


def run(model: LocalModel, given_: Path, out: Path, **job: Any) -> Any:
    return predict_items(PredictJob(given_, out, **job), model)


def test_one_of_everything(folder: Path, tmp_path: Path, model: LocalModel) -> None:
    out = tmp_path / "out"
    summary = run(model, folder, out, overlay=True)
    dicom = str(next((folder / "dicom").iterdir()).relative_to(folder))
    good = {"grey.png", "yes/colour.PNG", "photo.jpg", "array.npy", dicom, "patient", "untold.nii.gz"}
    failed = {"broken.png", "empty.png", "broken.nii.gz"}
    assert {one.item for one in summary.failed} == failed
    rows, items = rows_of(out), items_of(out)
    assert set(rows) == set(items) == good | failed
    for name in failed:
        assert rows[name]["status"] == "failed"
        assert rows[name]["error"]
        assert rows[name]["cure"]
    for name in good:
        assert rows[name]["research_use"] == RESEARCH_USE
        assert (out / rows[name]["mask"]).is_file()
        assert Image.open(out / rows[name]["overlay"]).mode == "RGB"
        assert float(rows[name]["tumor_probability"]) == items[name]["figures"]["tumor_probability"]
    assert {line["item"] for line in lines_of(out)} == good | failed
    assert not [path for path in out.rglob(".*") if path.is_file()], "temporary files are left"


def test_slices_are_the_predictors(folder: Path, tmp_path: Path, model: LocalModel, predictor: Predictor) -> None:
    out = tmp_path / "out"
    run(model, folder, out)
    items = items_of(out)
    pixels = np.asarray(Image.open(folder / "photo.jpg"))
    array = np.load(folder / "array.npy")
    cases = {
        "photo.jpg": SliceInput(pixels[np.newaxis], ("unknown",)),
        "array.npy": SliceInput(array, predictor.meta.preprocessing.modalities),
    }
    for name, given_ in cases.items():
        outcome = predictor.predict([given_])[0]
        assert isinstance(outcome, Prediction)
        assert outcome.mask is not None
        figures = items[name]["figures"]
        assert figures["tumor_probability"] == pytest.approx(outcome.tumor_probability, abs=1e-5)
        assert figures["regions"]["WT"] == {"pixels": int(outcome.mask[0].sum()), "area_mm2": None, "volume_ml": None}
        labels = np.asarray(Image.open(out / items[name]["mask"]))
        np.testing.assert_array_equal(labels, labels_of(outcome.mask.astype(np.bool_)))


def test_areas_where_the_file_tells_the_pixel(folder: Path, tmp_path: Path, model: LocalModel) -> None:
    run(model, folder / "dicom", tmp_path / "out")
    (item,) = items_of(tmp_path / "out").values()
    size = item["figures"]["regions"]["WT"]
    assert size["area_mm2"] == pytest.approx(size["pixels"] * 6.0)


def test_studies_are_predict_studys(
    folder: Path, tmp_path: Path, model: LocalModel, predictor: Predictor, study: Study
) -> None:
    out = tmp_path / "out"
    run(model, folder, out)
    expected = predict_study(study, predictor.predict, StudySettings.of(predictor.meta))
    item = items_of(out)["patient"]
    assert item["figures"]["tumor_probability"] == pytest.approx(expected.tumor_probability, abs=1e-5)
    assert expected.measures is not None
    assert item["figures"]["regions"]["WT"]["volume_ml"] == pytest.approx(expected.measures.regions["WT"].volume_ml)
    written = nib.load(out / item["mask"])
    scan = nib.load(folder / "patient_flair.nii.gz")
    assert written.shape == scan.shape
    np.testing.assert_allclose(written.affine, scan.affine)
    assert expected.mask is not None
    shown = to_display(np.asarray(written.dataobj), written.affine)
    np.testing.assert_array_equal(shown, labels_of(expected.mask.astype(np.bool_)))


def test_uncertainty_and_threshold(folder: Path, tmp_path: Path, model: LocalModel) -> None:
    options = PredictOptions(("classify", "segment", "uncertainty"), threshold=0.0, n_mc_samples=2, use_tta=True)
    run(model, folder, tmp_path / "out", options=options)
    for name in ("grey.png", "patient"):
        figures = items_of(tmp_path / "out")[name]["figures"]
        assert figures["mean_uncertainty"] > 0
        assert (figures["threshold"], figures["tumor_label"]) == (0.0, True)


def test_classes_alone_write_no_masks(folder: Path, tmp_path: Path, model: LocalModel) -> None:
    run(model, folder, tmp_path / "out", options=PredictOptions(("classify",)))
    assert not (tmp_path / "out" / "masks").exists()
    assert rows_of(tmp_path / "out")["patient"]["WT_pixels"] == ""


def names(items: Sequence[Any]) -> list[str]:
    return [item.name for item in items]


def test_what_counts_as_an_item(folder: Path, tmp_path: Path, record: StudyRecord) -> None:
    assert names(find_items(folder / "grey.png")) == ["grey.png"]
    (lone,) = find_items(folder / "untold.nii.gz", None, "t2")
    assert lone.record is not None
    assert list(lone.record.images) == ["t2"]
    (named,) = find_items(folder / "patient_t1ce.nii.gz", ["flair"])
    assert named.record is not None
    assert list(named.record.images) == ["t1ce"]
    for bad in ("patient_seg.nii.gz", "notes.txt"):
        with pytest.raises(SourceError, match="nothing that can be predicted"):
            find_items(folder / bad)
    with pytest.raises(SourceError, match="is not there"):
        find_items(folder / "gone")
    (study,) = [item for item in find_items(folder) if item.name == "patient"]
    assert study.record is not None
    assert study.record.labels == ()


def test_4d_volume_with_its_modalities_named(
    folder: Path, tmp_path: Path, model: LocalModel, record: StudyRecord
) -> None:
    volumes = [nib.load(folder / f"patient_{name}.nii.gz") for name in record.images]
    stack = np.stack([np.asarray(volume.dataobj) for volume in volumes], axis=-1)
    (tmp_path / "four").mkdir()
    nib.save(nib.Nifti1Image(stack, volumes[0].affine), tmp_path / "four" / "all.nii.gz")
    run(model, tmp_path / "four", tmp_path / "a", modalities=tuple(record.images))
    run(model, folder, tmp_path / "b")
    four, separate = items_of(tmp_path / "a")["all.nii.gz"], items_of(tmp_path / "b")["patient"]
    assert four["figures"] == separate["figures"]


def test_an_earlier_run_is_taken_over(folder: Path, tmp_path: Path, model: LocalModel) -> None:
    out = tmp_path / "out"
    n_good = len(run(model, folder, out).records) - 3
    before = {path: path.stat().st_mtime_ns for path in out.glob("masks/**/*") if path.is_file()}
    n_lines = len(lines_of(out))
    again = run(model, folder, out)
    assert again.resumed == n_good
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert [line["status"] for line in lines_of(out)[n_lines:]] == ["failed"] * 3

    shutil.copy(folder / "grey.png", folder / "broken.png")  # cured
    (out / "masks" / "grey.png.png").unlink()  # lost
    shutil.copy(folder / "photo.jpg", folder / "yes" / "colour.PNG")  # another content under the same name
    third = run(model, folder, out)
    assert third.resumed == n_good - 2
    assert {one.item for one in third.failed} == {"empty.png", "broken.nii.gz"}
    assert (out / "masks" / "grey.png.png").is_file()

    assert run(model, folder, out, options=PredictOptions(threshold=0.9)).resumed == 0
    assert run(model, folder, out, resume=False).resumed == 0
    assert len(lines_of(out)) == len(third.records)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1))
def test_a_journal_cut_anywhere_loses_only_the_cut_line(
    share: float, plane: np.ndarray, model: LocalModel, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder, out = tmp_path_factory.mktemp("cut"), tmp_path_factory.mktemp("out")
    for index in range(4):
        Image.fromarray(np.roll(plane, index, axis=0)).save(folder / f"{index}.png")
    options = PredictOptions(("classify",))
    run(model, folder, out, options=options)
    whole, results = (out / JOURNAL).read_bytes(), (out / "predictions.json").read_bytes()
    kept = whole[: int(share * len(whole))]
    (out / JOURNAL).write_bytes(kept)
    (out / "predictions.json").unlink()
    assert run(model, folder, out, options=options).resumed == kept.count(b"\n")
    again = json.loads((out / "predictions.json").read_bytes())
    assert len(lines_of(out)) == 4
    for one, other in zip(again["items"], json.loads(results)["items"], strict=True):
        # In a batch of another size the same slice may differ in the last digits.
        one_p, other_p = (item["figures"].pop("tumor_probability") for item in (one, other))
        assert one_p == pytest.approx(other_p, abs=1e-5)
        one_o, other_o = (item["figures"].pop("ood_score") for item in (one, other))
        assert one_o == pytest.approx(other_o, abs=1e-4)
        assert one == other


def test_refusals(folder: Path, tmp_path: Path, model: LocalModel) -> None:
    with pytest.raises(UsageError, match="lies in"):
        run(model, folder, folder / "out")
    out = tmp_path / "held"
    with open_journal(out, resume=True), pytest.raises(RunLockedError, match="another process"):
        run(model, folder, out)
    (tmp_path / "file").write_text("")
    with pytest.raises(SourceError, match="nothing"):
        run(model, tmp_path / "file", tmp_path / "out")


def call(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr("sys.argv", ["slicewise", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_command(
    folder: Path, tmp_path: Path, small_run: SmallRun, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    bundle, out = small_run.bundle.folder, tmp_path / "out"
    assert call(monkeypatch, "predict", folder, "--bundle", bundle, "--out", out, "--json", "--device", "cpu") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["items"] == told["done"] + 3
    assert {one["item"] for one in told["failed"]} == {"broken.png", "empty.png", "broken.nii.gz"}
    assert all(one["message"] and one["cure"] for one in told["failed"])
    assert told["research_use"] == RESEARCH_USE
    assert call(monkeypatch, "predict", folder / "empty.png", "--bundle", bundle, "--out", tmp_path / "none") == 1
    shown = capsys.readouterr().out
    assert "failed: empty.png: image" in shown
    assert RESEARCH_USE in shown
    assert call(monkeypatch, "predict", folder, "--out", out) == 2
    assert call(monkeypatch, "predict", folder, "--out", out, "--bundle", bundle, "--tasks", "guess") == 1


@pytest.mark.parametrize("method", ["gradcam", "hirescam", "integrated_gradients", "occlusion"])
def test_explain_a_slice(method: Any, folder: Path, tmp_path: Path, model: LocalModel, predictor: Predictor) -> None:
    out = tmp_path / "why.png"
    found = explain_file(ExplainJob(folder / "grey.png", out, method), model)
    pixels = np.asarray(Image.open(folder / "grey.png"))
    options = PredictOptions(("classify", "segment", "explain"), explain_method=method)
    expected = predictor.predict([SliceInput(pixels[np.newaxis], ("unknown",))], options)[0]
    assert isinstance(expected, Prediction)
    np.testing.assert_allclose(found.prediction.gradcam, expected.gradcam, atol=1e-5)
    assert found.slice_index is None
    assert Image.open(out).mode == "RGB"


def test_explain_a_study(folder: Path, tmp_path: Path, model: LocalModel, study: Study) -> None:
    only = tmp_path / "only"
    only.mkdir()
    for path in folder.glob("patient_*"):
        shutil.copy(path, only)
    expected = predict_study(study, model.slices(for_study=True), model.settings, PredictOptions(("classify",)))
    best = max(one.tumor_probability or 0.0 for one in expected.slices)
    found = explain_file(ExplainJob(only, tmp_path / "why.webp"), model)
    assert found.slice_index is not None
    assert expected.slices[found.slice_index].tumor_probability == best
    other = found.slice_index - 1
    assert explain_file(ExplainJob(only, tmp_path / "x.jpg", slice_index=other), model).slice_index == other
    for job, message in (
        (ExplainJob(only, tmp_path / "x.png", slice_index=999), "slice 999"),
        (ExplainJob(folder, tmp_path / "x.png"), "slices or studies"),
        (ExplainJob(folder / "grey.png", tmp_path / "x.png", slice_index=1), "single slice"),
        (ExplainJob(only, tmp_path / "x.gif"), "no picture's name"),
    ):
        with pytest.raises(UsageError, match=message):
            explain_file(job, model)
    with pytest.raises((InputError, StudyError), match="broken"):
        explain_file(ExplainJob(folder / "broken.nii.gz", tmp_path / "x.png"), model)


def test_real_scans(shared_data: Path, tmp_path: Path, model: LocalModel) -> None:
    folder = tmp_path / "scans"
    (folder / "yes").mkdir(parents=True)
    for path in sorted((shared_data / "kaggle" / "yes").iterdir())[:6]:
        shutil.copy(path, folder / "yes")
    lgg = sorted((shared_data / "lgg").iterdir())[0]
    shutil.copytree(lgg, folder / lgg.name)
    summary = run(model, folder, tmp_path / "out", overlay=True)
    assert not summary.failed
    assert len(summary.records) == 7
    figures = items_of(tmp_path / "out")[lgg.name]["figures"]
    assert len(figures["slices"]) == len(list(lgg.glob("*_mask.tif")))
