"""Figures by source, grade and size."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from slicewise.config import REGIONS, EvaluateConfig
from slicewise.evaluation.subgroups import NO_TUMOUR, UNKNOWN, size_group, subgroups

CONFIG = EvaluateConfig(bootstrap=100)
UNDEFINED = {"value": None, "low": None, "high": None, "n": 0}


def region(dice: float | None, volume: float | None) -> dict[str, Any]:
    return {"dice": dice, "reference_ml": volume, "empty_reference": volume == 0, "hd95_mm": 3.0, "sensitivity": dice}


def study(
    name: str,
    source: str = "brats",
    grade: str | None = "HGG",
    dice: float | None = 0.8,
    volume: float | None = 50.0,
    probability: float = 0.9,
    tumour: bool | None = True,
) -> dict[str, Any]:
    about = {"study": name, "patient": name, "source": source, "grade": grade}
    judged = {"tumour_probability": probability, "tumour_true": tumour}
    return about | judged | {each: region(dice, volume) for each in REGIONS}


def test_each_subgroup_has_its_own_figures() -> None:
    records = [
        study("a", dice=0.9, volume=120.0),
        study("b", dice=0.5, volume=39.9),
        study("c", source="lgg", grade="LGG", dice=0.7, volume=40.0),
        study("d", source="lgg", grade=None, dice=None, volume=0.0, tumour=False, probability=0.2),
        study("e", source="kaggle", grade=None, dice=None, volume=None, tumour=None),
    ]
    found = subgroups(records, CONFIG)
    assert {name: group["n"] for name, group in found["source"].items()} == {"brats": 2, "kaggle": 1, "lgg": 2}
    assert {name: group["n"] for name, group in found["grade"].items()} == {"HGG": 2, "LGG": 1, UNKNOWN: 2}
    assert [group["n"] for group in found["size"].values()] == [1, 1, 1, 1, 1]
    assert found["source"]["brats"]["dice_wt"]["value"] == pytest.approx(0.7)
    assert found["source"]["lgg"]["dice_wt"] == {"value": 0.7, "low": None, "high": None, "n": 1}
    assert found["source"]["lgg"]["roc_auc"]["value"] == 1.0
    assert found["source"]["brats"]["roc_auc"]["value"] is None
    assert found["source"]["kaggle"]["dice_wt"] == UNDEFINED
    json.dumps(found, allow_nan=False)


def test_a_subgroup_without_studies_is_listed_as_empty() -> None:
    grade = subgroups([study("a")], CONFIG)["grade"]["LGG"]
    assert (grade["n"], grade["patients"]) == (0, 0)
    assert all(grade[name] == UNDEFINED for name in grade if name not in ("n", "patients"))
    assert subgroups([], CONFIG)["source"] == {}


@pytest.mark.parametrize(
    ("volume", "name"),
    [
        (None, UNKNOWN),
        (0.0, NO_TUMOUR),
        (0.001, "small, < 40 ml"),
        (39.999, "small, < 40 ml"),
        (40.0, "medium, 40–100 ml"),
        (100.0, "large, ≥ 100 ml"),
        (1e6, "large, ≥ 100 ml"),
    ],
)
def test_size_groups_have_fixed_edges(volume: float | None, name: str) -> None:
    assert size_group(region(0.5, volume)) == name


@settings(max_examples=25)
@given(st.lists(st.tuples(st.booleans(), st.sampled_from([0.1, 0.2, 0.5, 0.7])), min_size=2, max_size=12))
def test_roc_auc_is_scikit_learns(rows: list[tuple[bool, float]]) -> None:
    records = [study("one", tumour=truth, probability=probability) for truth, probability in rows]
    value = subgroups(records, CONFIG)["source"]["brats"]["roc_auc"]["value"]
    truth = np.array([row[0] for row in rows])
    if truth.all() or not truth.any():
        assert value is None
    else:
        assert value == pytest.approx(roc_auc_score(truth, [row[1] for row in rows]))
