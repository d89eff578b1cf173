"""The comparison of two runs, and its page."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from metrics_v2 import make_metrics
from report_page import attributes, by_id, parse, texts_of
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from slicewise.cli import build_app
from slicewise.evaluation.compare import compare_runs
from slicewise.evaluation.report import Side, write_comparison
from slicewise.evaluation.run_folder import names_of
from slicewise.files import read_json, write_json


@pytest.fixture(scope="module")
def old() -> dict[str, Any]:
    return make_metrics(24, seed=0, skill=0.75)


@pytest.fixture(scope="module")
def new() -> dict[str, Any]:
    return make_metrics(24, seed=5, skill=0.88)


def row_of(comparison: dict[str, Any], metric: str) -> dict[str, Any]:
    return next(row for row in comparison["rows"] if row["metric"] == metric)


def test_means_and_differences_are_those_of_the_patients(old: dict[str, Any], new: dict[str, Any]) -> None:
    comparison = compare_runs(old, new)
    for region, key, metric in (("WT", "dice", "dice_wt"), ("ET", "hd95_mm", "hd95_et")):
        pairs = [(a[region][key], b[region][key]) for a, b in zip(old["studies"], new["studies"], strict=True)]
        a, b = np.array([pair for pair in pairs if None not in pair]).T
        row = row_of(comparison, metric)
        assert row["a"]["value"] == pytest.approx(a.mean())
        assert row["difference"]["value"] == pytest.approx((b - a).mean())
        assert row["difference"]["n"] == len(a)
        assert row["difference"]["low"] < row["difference"]["value"] < row["difference"]["high"]
    assert row_of(comparison, "dice_wt")["verdict"] == "B better"
    assert row_of(comparison, "hd95_wt")["verdict"] == "B better"  # less is better there
    assert comparison["paired"] is True
    assert comparison["warnings"] == []


def test_the_auc_of_patients(old: dict[str, Any], new: dict[str, Any]) -> None:
    row = row_of(compare_runs(old, new), "patient_roc_auc")
    truth = [study["tumour_true"] for study in old["studies"]]
    for side, metrics in (("a", old), ("b", new)):
        scores = [study["tumour_probability"] for study in metrics["studies"]]
        assert row[side]["value"] == pytest.approx(roc_auc_score(truth, scores))
    assert "DeLong" in row["method"]


def test_a_run_against_itself_shows_nothing(old: dict[str, Any]) -> None:
    comparison = compare_runs(old, copy.deepcopy(old))
    for row in comparison["rows"]:
        assert row["difference"]["value"] in (None, 0.0)
        assert row["verdict"] in ("no difference shown", "not tested")
        assert row["p"] in (None, 1.0)


def test_turning_the_runs_round_turns_the_signs(old: dict[str, Any], new: dict[str, Any]) -> None:
    one, other = compare_runs(old, new), compare_runs(new, old)
    for a, b in zip(one["rows"], other["rows"], strict=True):
        assert a["difference"]["value"] == pytest.approx(-b["difference"]["value"])
        assert a["p"] == pytest.approx(b["p"], abs=0.02)
        assert a["verdict"].replace("A ", "_ ").replace("B ", "A ").replace("_ ", "B ") == b["verdict"]


def test_holm_counts_all_tests(old: dict[str, Any], new: dict[str, Any]) -> None:
    rows = [row for row in compare_runs(old, new)["rows"] if row["p"] is not None]
    least = min(rows, key=lambda row: row["p"])
    assert least["p_holm"] == pytest.approx(min(1, least["p"] * len(rows)))


def test_other_patients_are_a_loud_warning(old: dict[str, Any]) -> None:
    comparison = compare_runs(old, make_metrics(12, name="stranger"), ("one", "two"))
    assert comparison["paired"] is False
    assert comparison["warnings"][0].startswith("NOT PAIRED: the runs share 0 test patients.")
    assert any("The data differ: digest 181818181818 of one" in warning for warning in comparison["warnings"])
    assert any(warning.startswith("The splits differ: train 120") for warning in comparison["warnings"])
    assert all(row["p"] is None and "not paired" in row["method"] for row in comparison["rows"])
    assert {"dice_wt", "roc_auc", "patient_roc_auc"} <= {row["metric"] for row in comparison["rows"]}


def test_only_shared_patients_are_paired(old: dict[str, Any], new: dict[str, Any]) -> None:
    fewer = new | {"studies": new["studies"][:15]}
    comparison = compare_runs(old, fewer)
    assert comparison["n_shared"] == 15
    assert "9 test patients of A only (patient-015, patient-016" in comparison["warnings"][0]
    same = compare_runs(old | {"studies": old["studies"][:15]}, fewer)
    assert row_of(comparison, "dice_tc") == row_of(same, "dice_tc")


def test_a_patient_without_the_figure_in_one_run_is_left_out_and_counted(
    old: dict[str, Any], new: dict[str, Any]
) -> None:
    changed = copy.deepcopy(new)
    ill = [study for study in changed["studies"] if study["WT"]["dice"] is not None]
    ill[0]["WT"]["hd95_mm"] = None
    row = row_of(compare_runs(old, changed), "hd95_wt")
    assert (row["left_out"], row["difference"]["n"]) == (1, len(ill) - 1)


def test_a_patients_studies_are_averaged_first(old: dict[str, Any], new: dict[str, Any]) -> None:
    """Two scans of one patient count once: the mean of the two is the patient's."""
    both = []
    for metrics in (old, new):
        merged = copy.deepcopy(metrics)
        first, second = [s for s in merged["studies"] if s["WT"]["dice"] is not None][:2]
        second["patient"] = first["patient"]
        both.append((merged, (first["WT"]["dice"] + second["WT"]["dice"]) / 2))
    row = row_of(compare_runs(both[0][0], both[1][0]), "dice_wt")
    single = row_of(compare_runs(old, new), "dice_wt")
    assert row["difference"]["n"] == single["difference"]["n"] - 1
    record = next(p for p in compare_runs(both[0][0], both[1][0])["patients"] if len(p["studies"]) == 2)
    assert record["WT"]["dice"] == pytest.approx([both[0][1], both[1][1]])


def test_references_and_phantoms_are_told(old: dict[str, Any], new: dict[str, Any]) -> None:
    changed = copy.deepcopy(new) | {"synthetic": True, "sources": ["brats"]}
    ill = next(study for study in changed["studies"] if study["WT"]["dice"] is not None)
    ill["WT"]["reference_ml"] *= 3
    warnings = " ".join(compare_runs(old, changed)["warnings"])
    assert f"The reference of 1 shared patients differs between the runs ({ill['patient']})" in warnings
    assert "SYNTHETIC phantoms are among the data of B" in warnings
    assert "The sources differ" in warnings


@pytest.mark.parametrize("changes", [{"masks": False}, {"one_class": True}, {"n_studies": 2}, {"known": ["WT"]}])
def test_what_is_missing_is_no_row(changes: dict[str, Any]) -> None:
    settings = {"n_studies": 6, **changes}
    comparison = compare_runs(make_metrics(seed=1, **settings), make_metrics(seed=2, **settings))
    assert json.loads(json.dumps(comparison, allow_nan=False))["rows"]
    assert all(row["a"]["value"] is not None or row["b"]["value"] is not None for row in comparison["rows"])


def test_the_older_layout_can_be_compared(old: dict[str, Any], new: dict[str, Any]) -> None:
    """Version 1 had no probabilities of studies, no surface distances and no lesions."""
    kept = ("study", "patient", "source", "n_slices")
    regional = ("known", "empty_reference", "dice", "iou", "predicted_ml", "reference_ml", "false_positive")
    aged = []
    for metrics in (old, new):
        studies = [
            {key: study[key] for key in kept}
            | {r: {key: study[r][key] for key in regional} for r in ("WT", "TC", "ET")}
            for study in metrics["studies"]
        ]
        aged.append(metrics | {"version": 1, "studies": studies})
    metrics = {row["metric"] for row in compare_runs(*aged)["rows"]}
    assert {"dice_wt", "roc_auc"} <= metrics
    assert not {"hd95_wt", "patient_roc_auc", "lesion_dice_wt"} & metrics


def test_the_page_says_what_the_file_says(old: dict[str, Any], new: dict[str, Any], tmp_path: Path) -> None:
    comparison = write_comparison(Side("old", old, tmp_path), Side("new", new, tmp_path), tmp_path)
    assert read_json(tmp_path / "compare.json") == json.loads(json.dumps(comparison))
    page = parse((tmp_path / "compare.html").read_text(encoding="utf-8"))
    text = texts_of(page)
    assert "new against old" in text
    assert "Research use only; not for diagnosis." in text
    for row in comparison["rows"]:
        assert row["label"] in text
        assert f"{row['difference']['value']:.3f}".replace("-", "−") in text
    for patient in comparison["patients"]:
        assert patient["patient"] in text
    anchors = {value for _, name, value in attributes(page) if name == "id"}
    links = [value for _, name, value in attributes(page) if name == "href"]
    assert all(link[1:] in anchors for link in links)
    assert by_id(page, "plot-compare-wt") is not None


def test_hostile_names_stay_text(old: dict[str, Any], tmp_path: Path) -> None:
    hostile = '<script>alert("x")</script>'
    changed = copy.deepcopy(old)
    for study in changed["studies"]:
        study["patient"] = study["study"] = study["study"] + hostile
    write_comparison(Side(hostile, changed, tmp_path), Side("b", changed, tmp_path), tmp_path)
    page = (tmp_path / "compare.html").read_text(encoding="utf-8")
    assert page.count("<script") == 1
    assert "alert(" not in "".join(e.text or "" for e in parse(page).iter() if str(e.tag).endswith("script"))


def test_the_verb_compares_two_folders(old: dict[str, Any], new: dict[str, Any], tmp_path: Path) -> None:
    write_json(tmp_path / "a" / "metrics.json", old)
    write_json(tmp_path / "b" / "metrics.json", new)
    out = tmp_path / "out"
    words = ["report", "--compare", str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(out)]
    answer = CliRunner().invoke(build_app(), words)
    assert answer.exit_code == 0, answer.output
    assert "Dice of WT (patients): b better" in answer.stdout
    assert (out / "compare.html").is_file()
    data = CliRunner().invoke(build_app(), [*words, "--json"])
    assert json.loads(data.stdout) == read_json(out / "compare.json")


@pytest.mark.parametrize("words", [[], ["--run", "x", "--compare", "a", "b"]])
def test_the_verb_wants_one_of_its_uses(words: list[str]) -> None:
    answer = CliRunner().invoke(build_app(), ["report", *words])
    assert answer.exit_code != 0
    assert "report takes either --run or --compare" in str(answer.exception)


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "cannot read"), ("{", "is damaged"), ("{}", "holds no metrics of SliceWise"), ("[]", "holds no metrics")],
)
def test_a_folder_without_metrics_is_refused(content: str | None, said: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "metrics.json").write_text(content)
    answer = CliRunner().invoke(build_app(), ["report", "--run", str(tmp_path)])
    assert answer.exit_code != 0
    assert said in str(answer.exception)


def test_names_tell_the_runs_apart() -> None:
    assert names_of(Path("/x/runs/a"), Path("/x/runs/b")) == ("a", "b")
    assert names_of(Path("/x/a/evaluation"), Path("/x/b/evaluation/metrics.json")) == ("a/evaluation", "b/evaluation")
    assert names_of(Path("/x/a"), Path("/x/a")) == ("a (A)", "a (B)")
