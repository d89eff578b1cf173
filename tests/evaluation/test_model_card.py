"""The model card, as Markdown and as data."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from metrics_v2 import make_metrics
from small_run import SmallRun

from slicewise.evaluation.model_card import model_card, model_card_json, write_model_card
from slicewise.files import read_json

HOSTILE = "x | <img src=x onerror=alert(1)> `code`\n# heading"


@pytest.fixture(scope="module")
def metrics() -> dict[str, Any]:
    return make_metrics(12)


def test_the_data_hold_what_a_card_must(metrics: dict[str, Any]) -> None:
    card = model_card_json(metrics, "mine", ("flair", "t1ce"))
    assert json.loads(json.dumps(card, allow_nan=False)) == card
    assert card["research_use"] == "Research use only; not for diagnosis."
    assert card["model_details"]["name"] == "mine"
    assert card["model_details"]["input_modalities"] == ["flair", "t1ce"]
    assert any("diagnosis" in line for line in card["intended_use"]["out_of_scope"])
    assert card["data"]["split"].startswith("60 studies to train, 12 to validate and 12 to test, dealt by patient")
    assert card["limits"]
    assert card["ethical_considerations"]
    for rows in (card["figures"], card["subgroups"], card["calibration"]["figures"], card["uncertainty"]["figures"]):
        assert rows
        assert all(
            row["n"] >= 1 and row["low"] <= row["value"] <= row["high"] for row in rows if row["low"] is not None
        )


def test_dropped_foci_are_among_the_limits(metrics: dict[str, Any]) -> None:
    chosen = metrics.get("postprocess", {}).get("chosen", {})
    assert not any("foci" in line for line in model_card_json(metrics)["limits"])
    some = metrics | {"postprocess": {"chosen": chosen | {"min_share": {"WT": 0.25, "TC": 0.0}}}}
    (line,) = [line for line in model_card_json(some)["limits"] if "foci" in line]
    assert "(WT below 25 % of its volume" in line


def test_figures_are_those_of_the_metrics(metrics: dict[str, Any]) -> None:
    rows = {row["figure"]: row["value"] for row in model_card_json(metrics)["figures"]}
    assert rows["ROC AUC, slices"] == metrics["classification"]["slice"]["figures"]["roc_auc"]["value"]
    assert rows["ROC AUC, patients"] == metrics["classification"]["patient"]["figures"]["roc_auc"]["value"]
    assert rows["HD95 (mm) of the tumour core (TC)"] == metrics["segmentation"]["TC"]["hd95_mm"]["value"]
    groups = {
        (row["group"], row["name"], row["figure"]): row["value"] for row in model_card_json(metrics)["subgroups"]
    }
    assert groups["source", "lgg", "Dice WT"] == metrics["subgroups"]["source"]["lgg"]["dice_wt"]["value"]


def test_the_markdown_says_the_same(metrics: dict[str, Any]) -> None:
    text, card = model_card(metrics), model_card_json(metrics)
    for heading in (
        "Model",
        "Intended use",
        "Data",
        "Figures on the test split",
        "Subgroups",
        "Calibration",
        "Limits",
    ):
        assert f"\n## {heading}\n" in text
    for row in card["figures"]:
        assert f"| {row['figure']} | {row['value']:.3f}".replace("-", "−") in text.replace("-", "−")
    assert text.count("Research use only; not for diagnosis.") >= 2
    assert "None" not in text.replace("None of", "")


def test_the_block_before_the_markdown_is_the_hubs(metrics: dict[str, Any]) -> None:
    block = yaml.safe_load(model_card(metrics, "a: b").split("---\n")[1])
    assert {"research-use-only", "not-for-diagnosis"} <= set(block["tags"])
    (entry,) = block["model-index"]
    assert entry["name"] == "a: b"
    figures = entry["results"][0]["metrics"]
    assert any("n=12" in figure["name"] for figure in figures)
    assert len(figures) == 4


def test_hostile_names_stay_text(metrics: dict[str, Any]) -> None:
    studies = [row | {"source": HOSTILE} for row in metrics["data"]["studies"]]
    changed = metrics | {"data": metrics["data"] | {"studies": studies}, "sources": [HOSTILE]}
    body = model_card(changed, HOSTILE).split("---\n", 2)[2]
    assert "<img" not in body
    assert not re.search(r"^# heading", body, flags=re.MULTILINE)
    assert "`code`" not in body
    tables = [line for line in body.splitlines() if line.startswith("| ")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in tables} <= {3, 4}


@pytest.mark.parametrize("settings", [{"n_studies": 1}, {"masks": False}, {"one_class": True}, {"known": ["WT"]}])
def test_a_card_with_little_to_tell(settings: dict[str, Any]) -> None:
    made = make_metrics(**{"n_studies": 4, **settings})
    for key in ("calibration_figures", "decision", "subgroups", "uncertainty", "explanation", "ood"):
        made[key] = None
    assert "Not judged in this run" in model_card(made)
    assert json.dumps(model_card_json(made), allow_nan=False)


def test_phantoms_are_named(metrics: dict[str, Any]) -> None:
    assert "SYNTHETIC" in model_card(metrics | {"synthetic": True})
    assert "SYNTHETIC" not in model_card(metrics)


def test_the_files(metrics: dict[str, Any], tmp_path: Path) -> None:
    paths = write_model_card(metrics, tmp_path, "mine")
    assert [path.name for path in paths] == ["model_card.md", "model_card.json"]
    assert read_json(tmp_path / "model_card.json") == json.loads(json.dumps(model_card_json(metrics, "mine")))


def test_the_bundle_holds_both(small_run: SmallRun) -> None:
    folder = small_run.bundle.folder
    assert {"model_card.md", "model_card.json"} <= set(small_run.bundle.meta.files)
    card = read_json(folder / "model_card.json")
    assert card["model_details"]["name"] == small_run.bundle.meta.name
    assert card["synthetic"] is True
    assert card["data"]["data_digest"] == small_run.bundle.meta.data_digest
