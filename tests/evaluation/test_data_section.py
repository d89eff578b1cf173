"""The report's part about the data says what the store, the split and the audit say."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
from small_run import SmallRun

from slicewise.errors import StoreError
from slicewise.evaluation.data_section import SHOWN_GROUPS, data_figures, save_thumbnails
from slicewise.evaluation.report import write_report


def page(run: SmallRun, metrics: dict[str, Any], out: Path) -> str:
    """The report's text, tags removed."""
    save_thumbnails(run.data.store, metrics["data"], out)
    html = write_report(metrics, out).read_text(encoding="utf-8")
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


def test_every_study_has_its_quality_in_metrics_and_report(small_run: SmallRun, tmp_path: Path) -> None:
    data = small_run.metrics["data"]
    assert {row["study"] for row in data["studies"]} == set(small_run.data.store.studies)
    for row in data["studies"]:
        study = small_run.data.store.studies[row["study"]]
        assert row["side"] in {"train", "val", "test"}
        assert row["snr"] == study.quality.snr
        assert row["frame"] == list(study.quality.frame)
        assert row["n_slices"] == len(study.slices)
    text = page(small_run, small_run.metrics, tmp_path)
    assert all(row["study"] in text for row in data["studies"])
    assert f"SYNTHETIC DATA: all {len(data['studies'])} studies are computed phantoms" in text


def test_figures_equal_the_audit_file(small_run: SmallRun) -> None:
    audit = json.loads((small_run.data.folder / "split" / "audit.json").read_text(encoding="utf-8"))
    assert small_run.metrics["data"]["audit"]["counts"] == audit["counts"] == small_run.metrics["audit"]


def test_duplicates_disagreements_and_real_data(small_run: SmallRun, tmp_path: Path) -> None:
    metrics = copy.deepcopy(small_run.metrics) | {"synthetic": False}
    keys = [row["study"] for row in metrics["data"]["studies"]]
    members = [{"study": key, "patient": None, "side": "train", "label": "tumour"} for key in keys]
    metrics["data"] |= {"n_synthetic": 0}
    metrics["data"]["audit"] |= {
        "groups": [{"kinds": ["content", "near"], "similarity": 0.9512, "members": members}],
        "n_groups": 1,
        "disagreements": [{"studies": keys[:2], "reason": "<b>a</b> tumour, b none"}],
        "excluded": {keys[0]: "labels disagree"},
    }
    text = page(small_run, metrics, tmp_path)
    assert "SYNTHETIC" not in text
    assert "All 1 groups of duplicates" in text
    assert "correlation ≥ 0.951 and 2 more" in text
    assert len(list((tmp_path / "pictures" / "duplicates").glob("*.png"))) == 6
    assert "&lt;b&gt;a&lt;/b&gt; tumour, b none" in text
    assert f"{keys[0]}: labels disagree" in text


def test_at_most_24_groups_go_into_the_metrics(small_run: SmallRun, tmp_path: Path) -> None:
    split = small_run.data.folder / "split"
    audit = json.loads((split / "audit.json").read_text(encoding="utf-8"))
    key = next(iter(small_run.data.store.studies))
    member = {"study": key, "patient": None, "side": "train", "label": "unknown"}
    audit["groups"] = [{"kinds": ["near"], "similarity": 1.0, "members": [member]}] * (SHOWN_GROUPS + 3)
    (tmp_path / "audit.json").write_text(json.dumps(audit), encoding="utf-8")
    (tmp_path / "split.json").write_text((split / "split.json").read_text(encoding="utf-8"), encoding="utf-8")
    figures = data_figures(small_run.data.store, tmp_path)["audit"]
    assert len(figures["groups"]) == SHOWN_GROUPS
    assert figures["n_groups"] == SHOWN_GROUPS + 3


def test_a_split_without_its_audit_is_refused(small_run: SmallRun, tmp_path: Path) -> None:
    split = small_run.data.folder / "split" / "split.json"
    (tmp_path / "split.json").write_text(split.read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(StoreError, match=r"audit\.json"):
        data_figures(small_run.data.store, tmp_path)
