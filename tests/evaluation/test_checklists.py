"""CLAIM 2024 and TRIPOD+AI, filled from the metrics."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from metrics_v2 import make_metrics

from slicewise.evaluation.checklists import Filled, fill_checklists, write_checklists
from slicewise.evaluation.checklists.fill import FILES, load_checklist
from slicewise.evaluation.facts import FACTS, gather_facts
from slicewise.files import read_json

TRIPOD = (
    "1 2 3a 3b 3c 4 5a 5b 6a 6b 6c 7 8a 8b 8c 9a 9b 9c 10 11 12a 12b 12c 12d 12e 12f 12g 13 14 15 16 17 18a 18b 18c "
    "18d 18e 18f 19 20a 20b 20c 21 22 23a 23b 24 25 26 27a 27b 27c"
)
# What no run can know: only people can answer these.
PEOPLE = {
    "claim-2024": {"4", "11", "15", "16", "17", "18", "33", "34", "44"},
    "tripod-ai": {"3c", "5b", "6a", "6c", "8b", "8c", "17", "18a", "18b", "18c", "18d", "19", "20c", "27c"},
}


@pytest.fixture(scope="module")
def metrics() -> dict[str, Any]:
    return make_metrics(12)


@pytest.fixture(scope="module")
def filled(metrics: dict[str, Any]) -> dict[str, Filled]:
    return {made.name: made for made in fill_checklists(metrics)}


def test_every_item_of_the_publications_is_there_once() -> None:
    assert [item.number for item in load_checklist("claim-2024").items] == [str(at) for at in range(1, 45)]
    assert " ".join(item.number for item in load_checklist("tripod-ai").items) == TRIPOD
    assert "Radiology: Artificial Intelligence 2024;6(4):e240300" in load_checklist("claim-2024").citation
    assert "BMJ 2024;385:e078378" in load_checklist("tripod-ai").citation


@pytest.mark.parametrize("name", FILES)
def test_items_name_facts_that_exist(name: str) -> None:
    for item in load_checklist(name).items:
        assert set(item.facts) <= set(FACTS), item.number
        assert item.asks.endswith("?")


@pytest.mark.parametrize("name", FILES)
def test_only_people_can_answer_the_open_items(name: str, filled: dict[str, Filled]) -> None:
    """With everything in the metrics, what stays open is what no run can know; it says what is left to do."""
    opened = {item.number for item in filled[name].items if item.status == "open"}
    assert opened == PEOPLE[name]
    for item in filled[name].items:
        assert (item.answer is None) == (item.status == "open")
        assert bool(item.left) == (item.status != "answered")


@pytest.mark.parametrize("name", FILES)
def test_counts_add_up(name: str, filled: dict[str, Filled]) -> None:
    made = filled[name]
    assert sum(made.counts.values()) == len(made.items)
    for status, count in made.counts.items():
        assert count == sum(item.status == status for item in made.items)


def test_answers_hold_the_runs_numbers(metrics: dict[str, Any], filled: dict[str, Filled]) -> None:
    claim = {item.number: item.answer or "" for item in filled["claim-2024"].items}
    auc = metrics["classification"]["slice"]["figures"]["roc_auc"]
    assert f"ROC AUC {auc['value']:.3f}" in claim["38"]
    assert "60 studies to train, 12 to validate and 12 to test" in claim["19"]
    assert "84 studies" in claim["13"]
    assert "No study was left out" in claim["8"]
    assert "joint (10 epochs)" in claim["25"]
    assert f"of {len(metrics['studies'])} test studies" in claim["39"]


@pytest.mark.parametrize(
    ("monitor", "words"),
    [("combined", "The epoch with the best combined score on the validation"), ("last", "The last epoch is kept")],
)
def test_how_the_weights_were_chosen(metrics: dict[str, Any], monitor: str, words: str) -> None:
    trained = metrics["training"] | {"monitor": monitor}
    assert gather_facts(metrics | {"training": trained})["selection"].startswith(words)


def test_what_a_run_cannot_tell_is_open(metrics: dict[str, Any]) -> None:
    bare = make_metrics(4, masks=False) | {
        "training": {},
        "subgroups": None,
        "explanation": None,
        "calibration_figures": None,
    }
    claim = {item.number: item for item in fill_checklists(bare)[0].items}
    for number in ("10", "22", "23", "24", "25", "26", "30", "31", "32", "37"):
        assert claim[number].status == "open", number
        assert claim[number].left
    assert claim["19"].status == "answered"


def test_an_older_layout_is_filled_too(metrics: dict[str, Any]) -> None:
    new = ("calibration_figures", "decision", "subgroups", "uncertainty", "explanation", "ood")
    aged = {key: value for key, value in metrics.items() if key not in new}
    assert all(made.counts["answered"] > 5 for made in fill_checklists(aged))


def test_facts_are_sentences_without_their_stop(metrics: dict[str, Any]) -> None:
    facts = gather_facts(metrics)
    assert facts.pop("limits")
    for name, text in facts.items():
        assert text, name
        assert not text.endswith("."), name
        assert "None" not in text.replace("None of", ""), name


def test_the_files_say_research_use_and_stay_tables(metrics: dict[str, Any], tmp_path: Path) -> None:
    hostile = "a|b <script>x</script> `y`\nz"
    changed = metrics | {"failures": [{"study_id": "s", "reason": hostile}]}
    paths = write_checklists(changed, tmp_path)
    assert [path.name for path in paths] == ["claim-2024.md", "claim-2024.json", "tripod-ai.md", "tripod-ai.json"]
    for name in FILES:
        text = (tmp_path / f"{name}.md").read_text(encoding="utf-8")
        assert "Research use only; not for diagnosis." in text
        assert "<script" not in text
        rows = [line for line in text.splitlines() if line.startswith("| ")]
        assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {6}
        data = read_json(tmp_path / f"{name}.json")
        assert len(data["items"]) == len(load_checklist(name).items)
        assert data["research_use"] == "Research use only; not for diagnosis."
