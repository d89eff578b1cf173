"""The report's page: complete, valid, safe, and never without an answer where data are missing."""

from __future__ import annotations

import base64
import copy
import io
import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from metrics_v2 import make_metrics
from PIL import Image
from report_page import attributes, by_id, made_slice, parse, texts_of

from slicewise.config import GateConfig
from slicewise.evaluation.gate import judge
from slicewise.evaluation.overlays import draw_study, save_picture
from slicewise.evaluation.report import write_report
from slicewise.evaluation.report.pictures import BUDGET_BYTES, embed_pictures
from slicewise.evaluation.report.plot import captions
from slicewise.evaluation.report.sections import CONTENTS
from slicewise.evaluation.shown_studies import list_studies, worst_first

HOSTILE = '"><img src=x onerror=alert(1)><script>alert(2)</script>'


def add_pictures(metrics: dict[str, Any], folder: Path, slices: int = 2, suffix: str = ".webp") -> dict[str, Any]:
    """Metrics whose studies have pictures, and the files in ``folder``."""
    made = copy.deepcopy(metrics)
    for at, study in enumerate(made["studies"]):
        rows = []
        for z in range(slices):
            picture = draw_study(modalities=("flair", "t1ce"), title=study["study"], **made_slice(at))
            name = f"pictures/{at}/{z}{suffix}"
            save_picture(picture, folder / name)
            rows.append({"file": name, "z": z, "caption": f"Slice {z}"})
        study["pictures"] = rows
    return made


def page_of(metrics: dict[str, Any], folder: Path) -> str:
    return write_report(metrics, folder).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("report")


@pytest.fixture(scope="module")
def metrics(folder: Path) -> dict[str, Any]:
    made = add_pictures(make_metrics(12, skill=0.75), folder)
    return made | {"verdict": judge(made, GateConfig(min_roc_auc=0.99, min_dice_wt=0.1))}


@pytest.fixture(scope="module")
def page(metrics: dict[str, Any], folder: Path) -> str:
    return page_of(metrics, folder)


def test_the_contents_lead_to_every_section(page: str) -> None:
    tree = parse(page)
    sections = [element.attrib["id"] for element in tree.iter() if str(element.tag).endswith("}section")]
    assert sections == [anchor for anchor, _ in CONTENTS]
    links = [value for tag, name, value in attributes(tree) if (tag, name) == ("a", "href")]
    assert links[: len(CONTENTS)] == [f"#{anchor}" for anchor, _ in CONTENTS]


def test_every_plot_says_what_it_shows_and_what_to_look_for(page: str) -> None:
    tree = parse(page)
    plots = [e for e in tree.iter() if "plot " in f"{e.attrib.get('class', '')} " and e.tag.endswith("}figure")]
    names = {plot.attrib["id"] for plot in plots}
    assert {
        "plot-dice",
        "plot-hd95",
        "plot-volume-wt",
        "plot-volume-tc",
        "plot-volume-et",
        "plot-roc",
        "plot-pr",
        "plot-confusion-slices",
        "plot-confusion-patients",
        "plot-decision",
        "plot-reliability",
        "plot-reliability-adaptive",
        "plot-reliability-wt",
        "plot-retention",
        "plot-uncertainty-dice",
        "plot-sanity",
        "plot-ood",
        "plot-forest-dice-wt",
        "plot-losses",
        "plot-validation",
        "plot-steps",
    } <= names
    for plot in plots:
        caption = re.sub(
            r"\s+", " ", "".join(next(e for e in plot.iter() if e.tag.endswith("}figcaption")).itertext())
        )
        shows, look = caption.split(" Look for ")
        assert len(shows) > 30
        assert len(look) > 20
        assert "{" not in caption
        assert any(e.tag.endswith("}svg") for e in plot.iter())


def test_every_kind_of_plot_has_all_its_words() -> None:
    for kind, words in captions().items():
        assert set(words) == {"title", "shows", "look"}, kind


def test_ids_are_used_once_and_links_lead_somewhere(page: str) -> None:
    found = list(attributes(parse(page)))
    ids = [value for _, name, value in found if name == "id"]
    assert len(ids) == len(set(ids))
    anchors = [value[1:] for _, name, value in found if name == "href" and value.startswith("#")]
    assert set(anchors) <= set(ids)
    clips = [match for _, _, value in found for match in re.findall(r"url\(#([^)]+)\)", value)]
    assert set(clips) <= set(ids)
    assert clips


def test_a_bad_patient_and_its_pictures_link_to_each_other(page: str, metrics: dict[str, Any]) -> None:
    tree = parse(page)
    for study in list_studies(metrics):
        row, shot = by_id(tree, study.row), by_id(tree, study.pictures)
        assert any(e.attrib.get("href") == f"#{study.pictures}" for e in row.iter())
        assert any(e.attrib.get("href") == f"#{study.row}" for e in shot.iter())
        assert ("flagged" in row.attrib.get("class", "")) == bool(study.flags)
    dots = [e for e in by_id(tree, "plot-dice").iter() if str(e.tag).endswith("}a")]
    scored = sum(study["WT"]["dice"] is not None for study in metrics["studies"])
    assert len(dots) == 3 * scored
    assert all(e.attrib["href"].startswith("#study-") for e in dots)
    assert "".join(dots[0].itertext()).strip().startswith("patient-")


def test_the_worst_come_first() -> None:
    def record(name: str, dice: float | None, **more: Any) -> dict[str, Any]:
        empty = {"dice": None}
        return {"study": name, "WT": {"dice": dice}, "TC": empty, "ET": empty, **more}

    records = [
        record("good", 0.9),
        record("unknown", None),
        record("alarm", None, tumour_probability=0.9, tumour_true=False),
        record("middle", 0.6),
        record("low", 0.2),
        record("missed", 0.7, tumour_probability=0.1, tumour_true=True),
    ]
    made = {"studies": records, "classification": {"slice": {"threshold": 0.5}}}
    ordered = worst_first(list_studies(made))
    assert [s.name for s in ordered] == ["low", "missed", "alarm", "middle", "good", "unknown"]
    assert [s.flags for s in ordered[:3]] == [("WT Dice below 0.5",), ("missed tumour",), ("false alarm",)]


def test_the_viewer_shows_the_worst_first_and_all_slices(page: str, metrics: dict[str, Any]) -> None:
    tree = parse(page)
    shots = [e.attrib["id"] for e in tree.iter() if e.attrib.get("class") == "shot"]
    assert shots == [study.pictures for study in worst_first(list_studies(metrics))]
    images = [e for e in tree.iter() if str(e.tag).endswith("}img")]
    assert len(images) == 2 * len(shots)
    assert all(e.attrib["alt"] and e.attrib["src"].startswith("data:image/webp;base64,") for e in images)


def test_the_gate_is_told_with_its_numbers(page: str, metrics: dict[str, Any]) -> None:
    text = texts_of(parse(page))
    assert metrics["verdict"]["summary"] in text
    (reason,) = metrics["verdict"]["reasons"]
    assert reason in text
    assert "at least 0.99 is wanted" in reason


def test_a_hostile_name_stays_text_everywhere(metrics: dict[str, Any], folder: Path) -> None:
    hostile = json.loads(
        json.dumps(metrics)
        .replace("patient-00", HOSTILE.replace('"', r"\"") + "-00")
        .replace("brats", HOSTILE.replace('"', r"\""))
    )
    hostile["failures"] = [{"study_id": HOSTILE, "reason": HOSTILE}]
    page = page_of(hostile, folder)
    tree = parse(page)
    assert page.count("<script") == 1
    assert not [e for e in tree.iter() if "onerror" in e.attrib]
    assert all(v.startswith("data:") for tag, name, v in attributes(tree) if (tag, name) == ("img", "src"))
    assert "alert(2)" in texts_of(tree)
    for name in ("model_card.md", "claim-2024.md", "tripod-ai.md"):
        assert "<script" not in (folder / name).read_text(encoding="utf-8")


def without(*keys: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda metrics: {key: value for key, value in metrics.items() if key not in keys}


def not_sampled(metrics: dict[str, Any], changed: dict[str, Any]) -> dict[str, Any]:
    return changed | {"studies": [study | {"mean_uncertainty": None} for study in metrics["studies"]]}


NEW_SECTIONS = ("calibration_figures", "decision", "subgroups", "uncertainty", "explanation", "ood")


@pytest.mark.parametrize(
    ("settings", "change", "said"),
    [
        ({"n_studies": 1}, dict, ["1 test patients: intervals are wide"]),
        ({"n_studies": 2}, dict, []),
        ({"one_class": True}, dict, []),
        ({"masks": False}, dict, ["No test study has a reference mask", "No test study has a mask"]),
        ({"known": ["WT"]}, dict, []),
        ({"sources": ["a", "b", "c", "d", "e", "f", "g", "h"]}, dict, []),
        ({}, without("calibration_figures"), ["No test slice has a known class: probabilities could not be held"]),
        ({}, without("decision"), ["This evaluation does not tell how decisions are made"]),
        ({}, without("subgroups"), ["This evaluation has no subgroups"]),
        ({}, lambda m: not_sampled(m, without("uncertainty")(m)), ["No uncertainty was sampled"]),
        ({}, without("ood"), []),
        ({}, without(*NEW_SECTIONS), ["No pictures were saved with this evaluation"]),
        ({}, lambda m: not_sampled(m, m | dict.fromkeys(NEW_SECTIONS)), ["No uncertainty was sampled"]),
        (
            {},
            lambda m: m | {"uncertainty": {"reason": "the network has no dropout"}},
            ["the network has no dropout."],
        ),
        ({}, lambda m: m | {"training": {}}, ["There is no training record"]),
        ({}, lambda m: m | {"training": m["training"] | {"before": [], "history": [], "skipped": "x"}}, []),
        (
            {},
            lambda m: m | {"decision": m["decision"] | {"abstain": None, "reason": "too few patients"}},
            ["too few"],
        ),
        ({}, lambda m: m | {"synthetic": True}, ["SYNTHETIC DATA: 0 of 42 studies are computed phantoms"]),
    ],
)
def test_missing_parts_are_a_sentence_and_no_crash(
    settings: dict[str, Any], change: Callable[[dict[str, Any]], dict[str, Any]], said: list[str], tmp_path: Path
) -> None:
    text = texts_of(parse(page_of(change(make_metrics(**{"n_studies": 6, **settings})), tmp_path)))
    assert [words for words in said if words not in text] == []
    assert not re.search(r"\bnan\b|\bNone\b(?! of| needs)|Undefined|\{\{", text)


def test_no_known_class_at_all(tmp_path: Path) -> None:
    metrics = make_metrics(4)
    empty = {"n": 0, "n_positive": 0, "patients": 0, "threshold": 0.5, "figures": {}}
    studies = [study | {"tumour_probability": None, "tumour_true": None} for study in metrics["studies"]]
    metrics |= {"classification": {"slice": empty, "patient": empty}, "studies": studies, "calibration_figures": None}
    text = texts_of(parse(page_of(metrics, tmp_path)))
    assert "No test slice has a known class, so the classification could not be judged." in text


def test_no_test_study_at_all(tmp_path: Path) -> None:
    metrics = make_metrics(4, masks=False) | {"studies": [], "subgroups": {}}
    assert "Test studies" in texts_of(parse(page_of(metrics, tmp_path)))


def test_the_older_layout_has_a_page(tmp_path: Path) -> None:
    """Version 1: no section of the new ones, criteria without bounds, a few figures of regions."""
    made = without(*NEW_SECTIONS)(make_metrics(6))
    kept = ("dice", "iou", "n_scored", "n_unknown", "n_empty_reference", "n_false_positive")
    criterion = {"name": "ROC-AUC (slices)", "value": 0.9, "limit": 0.6, "kind": "at least", "passed": True}
    made |= {
        "segmentation": {r: {key: row[key] for key in kept} for r, row in made["segmentation"].items()},
        "verdict": {"passed": True, "criteria": [criterion], "reasons": []},
        "validation": {"n": 0},
        "test_calibration": {},
    }
    text = texts_of(parse(page_of(made, tmp_path)))
    assert "The gate passed the model." in text
    assert "ROC-AUC (slices)" in text


def test_the_page_is_the_same_twice(page: str, metrics: dict[str, Any], folder: Path) -> None:
    made = re.compile(r"made \S+ by")
    assert made.sub("", page) == made.sub("", page_of(metrics, folder))


@pytest.mark.parametrize("content", [None, b"no picture", b""])
def test_a_missing_or_damaged_picture_is_left_out(
    content: bytes | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = add_pictures(make_metrics(3), tmp_path)
    path = tmp_path / metrics["studies"][1]["pictures"][0]["file"]
    path.unlink() if content is None else path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        found = embed_pictures(list_studies(metrics), tmp_path)
    assert sum(len(pictures) for pictures in found.values()) == 5
    assert "is left out" in caplog.text


@pytest.mark.parametrize("name", ["../secret.webp", "/etc/hostname", "pictures/../../secret.webp"])
def test_pictures_outside_the_folder_are_not_read(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home = tmp_path / "evaluation"
    save_picture(draw_study(modalities=("flair", "t1ce"), **made_slice()), tmp_path / "secret.webp")
    metrics = make_metrics(1)
    metrics["studies"][0]["pictures"] = [{"file": name, "z": 1, "caption": "x"}]
    assert embed_pictures(list_studies(metrics), home) == {}
    assert "lies outside" in caplog.text


def test_many_pictures_are_made_smaller(tmp_path: Path) -> None:
    """A large picture loses pixels and quality, its shape stays."""
    noise = np.random.default_rng(0).integers(0, 255, (520, 894, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    metrics = make_metrics(1)
    metrics["studies"][0]["pictures"] = [{"file": "noise.png", "z": z, "caption": ""} for z in range(3)]
    (pictures,) = embed_pictures(list_studies(metrics), tmp_path).values()
    picture = Image.open(io.BytesIO(base64.b64decode(pictures[0].source.partition(",")[2])))
    assert picture.format == "WEBP"
    assert 0.6 * 894 - 1 <= picture.width < 894
    assert picture.width / picture.height == pytest.approx(894 / 520, rel=0.01)
    assert sum(len(p.source) for p in pictures) < BUDGET_BYTES
    assert len(pictures[0].source) < (tmp_path / "noise.png").stat().st_size / 5


def test_png_and_jpeg_are_embedded_as_they_are_where_they_are_small(tmp_path: Path) -> None:
    for suffix, kind in ((".png", "png"), (".jpg", "jpeg")):
        metrics = add_pictures(make_metrics(1), tmp_path, slices=1, suffix=suffix)
        (pictures,) = embed_pictures(list_studies(metrics), tmp_path).values()
        assert pictures[0].source.startswith(f"data:image/{kind};base64,")
