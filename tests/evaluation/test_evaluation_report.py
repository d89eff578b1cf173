"""The report of a real run says what its metrics say, in one file."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
from report_page import attributes, parse, texts_of
from small_run import SmallRun
from typer.testing import CliRunner

from slicewise.cli import build_app
from slicewise.config import REGIONS
from slicewise.evaluation.report import write_report
from slicewise.evaluation.words import interval, number, short
from slicewise.files import read_json


def page_of(run: SmallRun) -> str:
    return (run.evaluation / "report.html").read_text(encoding="utf-8")


def shown(metrics: dict[str, Any]) -> list[str]:
    """Figures of the metrics as the report prints them."""
    classification, segmentation = metrics["classification"], metrics["segmentation"]
    found = [interval(figure) for level in classification.values() for figure in level["figures"].values()]
    found += [interval(row[name]) for row in segmentation.values() for name in ("dice", "iou", "sensitivity")]
    found += [interval(row[name], 1) for row in segmentation.values() for name in ("hd95_mm", "volume_error_ml")]
    for when in ("before", "after"):
        figures = metrics["calibration_figures"]["tumour"]["test"][when]["figures"]
        found += [interval(figures[key], 4) for key in ("ece", "ece_adaptive", "brier", "nll")]
    for study in metrics["studies"]:
        found += [number(study[r]["dice"]) for r in REGIONS if study[r]["dice"] is not None]
    found += [short(segmentation["WT"]["dice"]), metrics["data_digest"][:16]]
    return found + [criterion["name"] for criterion in metrics["verdict"]["criteria"]]


def test_the_page_shows_the_figures_of_metrics_json(small_run: SmallRun) -> None:
    metrics = read_json(small_run.evaluation / "metrics.json")
    assert metrics == small_run.metrics
    text = texts_of(parse(page_of(small_run)))
    assert [figure for figure in shown(metrics) if figure not in text] == []
    assert "SYNTHETIC DATA: all 8 studies" in text
    assert text.count("Research use only; not for diagnosis.") >= 2
    assert "refused" in text
    for reason in metrics["verdict"]["reasons"]:
        assert reason in text


def test_another_figure_makes_another_page(small_run: SmallRun, tmp_path: Path) -> None:
    metrics = copy.deepcopy(small_run.metrics)
    metrics["segmentation"]["WT"]["dice"] = {"value": 0.12345, "low": 0.1, "high": 0.2, "n": 77}
    text = texts_of(parse(write_report(metrics, tmp_path, small_run.evaluation).read_text(encoding="utf-8")))
    assert "0.123 (0.100–0.200, n=77)" in text
    assert "0.123 (0.100–0.200, n=77)" not in texts_of(parse(page_of(small_run)))


def test_the_page_needs_nothing_from_outside(small_run: SmallRun) -> None:
    """Every address is an anchor of the page or data within it; the browser is told to load nothing else."""
    page = parse(page_of(small_run))
    anchors = {value for _, name, value in attributes(page) if name == "id"}
    for _, name, value in attributes(page):
        if name in ("src", "href", "action", "srcset", "poster"):
            assert value.startswith(("data:image/", "#")), value
            assert not value.startswith("#") or value[1:] in anchors
    assert not re.search(r"@import|https?://", page_of(small_run))
    policy = next(value for _, name, value in attributes(page) if name == "content" and "default-src" in value)
    assert policy.startswith("default-src 'none'; img-src data:")


def test_every_picture_of_the_metrics_is_in_the_page(small_run: SmallRun) -> None:
    wanted = sum(len(study["pictures"]) for study in small_run.metrics["studies"])
    found = [v for tag, name, v in attributes(parse(page_of(small_run))) if (tag, name) == ("img", "src")]
    assert len(found) == wanted >= 1


def test_figures_have_n_and_intervals(small_run: SmallRun) -> None:
    figures = small_run.metrics["classification"]["slice"]["figures"]
    assert {"accuracy", "sensitivity", "specificity", "roc_auc", "pr_auc"} <= set(figures)
    for figure in figures.values():
        if figure["low"] is not None:
            assert figure["low"] <= figure["value"] + 1e-9
            assert figure["n"] == pytest.approx(2)


def test_the_verb_makes_the_same_files_from_the_folder_alone(small_run: SmallRun, tmp_path: Path) -> None:
    words = ["report", "--run", str(small_run.evaluation), "--out", str(tmp_path), "--json"]
    answer = CliRunner().invoke(build_app(), words)
    assert answer.exit_code == 0, answer.output
    assert json.loads(answer.stdout)["report"] == str(tmp_path / "report.html")
    made = re.compile(r"made \S+ by")  # the only thing that differs
    one, other = (made.sub("", text) for text in (page_of(small_run), (tmp_path / "report.html").read_text("utf-8")))
    assert one == other
    for name in ("model_card.md", "model_card.json", "claim-2024.md", "tripod-ai.json"):
        assert (tmp_path / name).read_bytes() == (small_run.evaluation / name).read_bytes()


def test_the_curve_of_the_steps_comes_from_training(small_run: SmallRun) -> None:
    training = small_run.metrics["training"]
    for stage in (*training["before"], training):
        assert len(stage["step_losses"]) >= 2
        assert [step for step, _ in stage["step_losses"]] == sorted(step for step, _ in stage["step_losses"])
    assert 'id="plot-steps"' in page_of(small_run)
