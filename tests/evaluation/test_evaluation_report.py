"""The report says what the metrics say, in one file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from small_run import MODEL, SmallRun

from slicewise.evaluation.report import write_report


def test_report_is_one_file_and_shows_the_metrics(small_run: SmallRun) -> None:
    page = (small_run.evaluation / "report.html").read_text(encoding="utf-8")
    assert not re.search(r'(?:src|href)="(?!data:)', page)
    assert "SYNTHETIC" in page
    assert "Research use only; not for diagnosis." in page
    auc = small_run.metrics["classification"]["slice"]["figures"]["roc_auc"]["value"]
    assert f"{auc:.3f}" in page
    assert "refused" in page
    assert small_run.metrics["verdict"]["passed"] is False
    for study in small_run.metrics["studies"]:
        assert study["study"] in page


def test_hostile_names_are_escaped(small_run: SmallRun, tmp_path: Path) -> None:
    metrics = small_run.metrics | {"failures": [{"study_id": "x", "reason": "<script>alert(1)</script>"}]}
    path = write_report(small_run.data.store.folder, small_run.weights, MODEL, metrics, tmp_path)
    page = path.read_text(encoding="utf-8")
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_figures_have_n_and_intervals(small_run: SmallRun) -> None:
    figures = small_run.metrics["classification"]["slice"]["figures"]
    assert {"accuracy", "sensitivity", "specificity", "roc_auc", "pr_auc"} <= set(figures)
    for figure in figures.values():
        if figure["low"] is not None:
            assert figure["low"] <= figure["value"] + 1e-9
            assert figure["n"] == pytest.approx(2)
