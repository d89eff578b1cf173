"""The gate: conditions on values and bounds, subgroups, calibration, the champion, and its sentences."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from metrics_v2 import make_metrics
from typer.testing import CliRunner

from slicewise.cli import build_app
from slicewise.config import GateConfig, load_config, validate
from slicewise.config.metric_names import SHORT_NAMES, label_of
from slicewise.errors import ConfigError
from slicewise.evaluation.gate import check_gate, judge
from slicewise.evaluation.gate.lookup import all_figures, find_figure
from slicewise.files import write_json


def gate(**settings: Any) -> GateConfig:
    return validate(GateConfig, settings)


def figure(value: float | None, low: float | None = None, high: float | None = None, n: int = 0) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "n": n}


def small_metrics(**figures: dict[str, Any]) -> dict[str, Any]:
    return {
        "classification": {"slice": {"figures": figures}, "patient": {"figures": {}}},
        "segmentation": {"WT": {"dice": figures.get("dice", figure(None))}},
        "studies": [],
    }


def test_the_four_plain_limits() -> None:
    metrics = small_metrics(roc_auc=figure(0.8), sensitivity=figure(0.5, 0.4, 0.6, 12), ece=figure(0.2))
    verdict = judge(metrics, gate(min_roc_auc=0.8, min_sensitivity=0.9, min_dice_wt=0.5, max_ece=0.1))
    assert [criterion["passed"] for criterion in verdict["criteria"]] == [True, False, None, False]
    assert verdict["reasons"] == [
        "sensitivity (slices) is 0.500 (0.400–0.600, n=12), at least 0.9 is wanted",
        "ECE (slices) is 0.200, at most 0.1 is wanted",
    ]
    assert verdict["passed"] is False
    assert verdict["summary"] == (
        "The gate refused the model: 1 of 4 conditions are kept, 2 are not, 1 could not be judged."
    )


def test_nothing_to_judge() -> None:
    undefined = judge(small_metrics(), gate(min_roc_auc=0.1, max_ece=1.0))
    assert undefined["passed"] is False
    assert "none of the gate's figures is defined" in undefined["reasons"][0]
    free = judge(small_metrics(), GateConfig())
    assert (free["passed"], free["criteria"], free["reasons"]) == (True, [], [])
    assert "without having been judged" in free["summary"]


@pytest.mark.parametrize(
    ("bound", "limits", "passed"),
    [
        ("value", {"min": 0.9}, True),
        ("low", {"min": 0.9}, False),
        ("low", {"min": 0.85}, True),
        ("high", {"max": 0.95}, False),
        ("high", {"max": 0.96}, True),
        ("value", {"min": 0.8, "max": 0.9}, False),
    ],
)
def test_bounds(bound: str, limits: dict[str, float], passed: bool) -> None:
    metrics = small_metrics(roc_auc=figure(0.91, 0.85, 0.96, 30))
    verdict = judge(metrics, gate(conditions=[{"metric": "roc_auc", "bound": bound, **limits}]))
    assert verdict["passed"] is passed
    assert all("0.910 (0.850–0.960, n=30)" in criterion["sentence"] for criterion in verdict["criteria"])


def test_the_reason_names_the_bound_that_failed() -> None:
    metrics = small_metrics(roc_auc=figure(0.91, 0.85, 0.96, 30))
    (reason,) = judge(metrics, gate(conditions=[{"metric": "roc_auc", "bound": "low", "min": 0.9}]))["reasons"]
    assert reason == (
        "ROC-AUC (slices) is 0.910 (0.850–0.960, n=30): its lower bound is 0.850, at least 0.9 is wanted"
    )


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_limit_is_kept_exactly_when_it_is_reached(value: float, limit: float) -> None:
    metrics = small_metrics(roc_auc=figure(value))
    least = judge(metrics, gate(min_roc_auc=limit))["criteria"][0]
    most = judge(metrics, gate(conditions=[{"metric": "roc_auc", "max": limit}]))["criteria"][0]
    assert (least["passed"], most["passed"]) == (value >= limit, value <= limit)


def test_undefined_is_not_held_against_it_unless_required() -> None:
    metrics = small_metrics(roc_auc=figure(0.9, n=1), dice=figure(None))
    lenient = gate(min_roc_auc=0.5, conditions=[{"metric": "dice_wt", "min": 0.5}])
    assert judge(metrics, lenient)["passed"] is True
    strict = gate(min_roc_auc=0.5, conditions=[{"metric": "dice_wt", "min": 0.5, "require": True}])
    assert judge(metrics, strict)["reasons"] == [
        "Dice of WT (patients) is undefined on this test split, and it is required"
    ]
    bound = gate(conditions=[{"metric": "roc_auc", "bound": "low", "min": 0.5, "require": True}])
    assert "the lower bound of ROC-AUC (slices) is undefined" in judge(metrics, bound)["reasons"][0]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"conditions": [{"metric": "roc_acu", "min": 0.5}]}, "unknown metric 'roc_acu', did you mean 'roc_auc'"),
        ({"conditions": [{"metric": "oodd.auroc", "min": 0.5}]}, "unknown metric 'oodd.auroc'"),
        ({"conditions": [{"metric": "roc_auc"}]}, "needs min, max or both"),
        ({"subgroups": [{"metric": "dice_wt"}]}, "needs min, max or both"),
        ({"champion_rule": {"max_drop": {"dice": 0.1}}}, "unknown metric 'dice'"),
        ({"champion_rule": {"max_drop": {"dice_wt": -0.1}}}, "greater than or equal to 0"),
        ({"calibration": {"outputs": ["WTT"]}}, "gate.calibration.outputs.0"),
    ],
)
def test_wrong_settings_are_refused_before_anything_runs(settings: dict[str, Any], said: str) -> None:
    words = [f"gate.{key}={json.dumps(value)}" for key, value in settings.items()]
    with pytest.raises(ConfigError, match=said.replace("(", r"\(")):
        load_config("smoke", overrides=words)


def test_an_unknown_path_names_near_ones() -> None:
    metrics = make_metrics(4)
    condition = {"metric": "classification.slice.figures.roc_acu", "min": 0.5}
    with pytest.raises(ConfigError, match=r"did you mean 'classification\.slice\.figures\.roc_auc'"):
        judge(metrics, gate(conditions=[condition]))


def test_a_section_that_this_run_does_not_have_is_undefined() -> None:
    metrics = make_metrics(4) | {"ood": None, "uncertainty": None}
    assert find_figure(metrics, "ood.auroc").value is None
    assert find_figure(metrics, "uncertainty.anything.at.all").value is None


def test_every_figure_of_the_metrics_is_found_by_its_path() -> None:
    metrics = make_metrics(6, sources=("brats", "a.b.c"))
    found = dict(all_figures(metrics))
    assert "subgroups.source.a.b.c.dice_wt" in found
    assert len(found) > 200
    for path, wanted in found.items():
        assert find_figure(metrics, path) == wanted


def test_every_short_name_has_a_label_and_a_path() -> None:
    metrics = make_metrics(6)
    for name, path in SHORT_NAMES.items():
        assert label_of(name) == label_of(path) != path
        assert find_figure(metrics, name) == find_figure(metrics, path)
    found = {path for path, _ in all_figures(metrics)}
    assert set(SHORT_NAMES.values()) <= found


def test_subgroups_must_reach_the_floor_where_they_are_large_enough() -> None:
    groups = {
        "source": {
            "brats": {"n": 20, "dice_wt": figure(0.8, 0.7, 0.9, 18)},
            "lgg": {"n": 9, "dice_wt": figure(0.4, 0.3, 0.5, 7)},
        },
        "grade": {"LGG": {"n": 3, "dice_wt": figure(0.1, 0.0, 0.2, 3)}},
    }
    metrics = small_metrics() | {"subgroups": groups}
    verdict = judge(metrics, gate(subgroups=[{"min": 0.6, "min_n": 5}]))
    assert [criterion["passed"] for criterion in verdict["criteria"]] == [True, False, None]
    assert verdict["reasons"] == [
        "Dice of WT (patients) where source is lgg is 0.400 (0.300–0.500, n=7), at least 0.6 is wanted"
    ]
    assert "3 patients, 5 are needed" in verdict["criteria"][2]["sentence"]
    only = judge(metrics, gate(subgroups=[{"min": 0.6, "by": ["source"], "bound": "low"}]))
    assert len(only["criteria"]) == 2


def test_calibration_must_not_raise_the_nll() -> None:
    def side(before: float, after: float) -> dict[str, Any]:
        figures = [
            {"figures": {"nll": figure(nll, n=9), "ece": figure(0.08, 0.05, 0.12, 9)}} for nll in (before, after)
        ]
        return {"test": dict(zip(("before", "after"), figures, strict=True))}

    limits = gate(
        calibration={"outputs": ["tumour", "WT", "ET"], "nll_not_worse": True, "max_ece": 0.1, "bound": "high"}
    )
    metrics = small_metrics() | {"calibration_figures": {"tumour": side(0.4, 0.35), "WT": side(0.2, 0.25)}}
    verdict = judge(metrics, limits)
    assert [criterion["passed"] for criterion in verdict["criteria"]] == [False, True, False, False, None, None]
    assert (
        "NLL after calibration (WT) is 0.250 (n=9), at most 0.2, that of the raw probabilities, is wanted"
        in verdict["reasons"]
    )
    same = small_metrics() | {"calibration_figures": {"tumour": side(0.4, 0.4)}}
    assert judge(same, gate(calibration={"nll_not_worse": True}))["passed"] is True


@pytest.fixture(scope="module")
def good() -> dict[str, Any]:
    return make_metrics(20, seed=3, skill=0.9)


@pytest.fixture(scope="module")
def bad() -> dict[str, Any]:
    return make_metrics(20, seed=4, skill=0.7)


def test_a_regression_is_refused_with_the_numbers(good: dict[str, Any], bad: dict[str, Any], tmp_path: Path) -> None:
    write_json(tmp_path / "old" / "metrics.json", good)
    rule = {"max_drop": {"roc_auc": None, "dice_wt": 0.02, "hd95_wt": 1.0}}
    verdict = judge(bad, gate(champion=str(tmp_path / "old"), champion_rule=rule))
    assert verdict["champion"] == {"name": "old", "kind": "metrics", "n_shared": 20, "paired": True}
    assert [criterion["passed"] for criterion in verdict["criteria"]] == [False, False]
    old, new = (m["segmentation"]["WT"]["dice"]["value"] for m in (good, bad))
    reason = verdict["reasons"][0]
    assert f"Dice of WT (patients) is {new:.3f} against the champion's {old:.3f}, worse by {old - new:.3f}" in reason
    assert "paired); a drop of at most 0.02 is allowed" in reason
    back = judge(good, gate(champion=str(_written(tmp_path, bad)), champion_rule=rule))
    assert back["passed"] is True
    assert back["criteria"][1]["value"] > 1  # millimetres less are a gain


def _written(folder: Path, metrics: dict[str, Any]) -> Path:
    write_json(folder / "other" / "metrics.json", metrics)
    return folder / "other" / "metrics.json"


def test_non_inferiority_asks_the_interval(good: dict[str, Any], tmp_path: Path) -> None:
    """The mean drop is 0.01, but patients differ by ±0.1: so few cannot exclude a larger one."""
    write_json(tmp_path / "metrics.json", good)
    again = copy.deepcopy(good)
    scored = [study["WT"] for study in again["studies"] if study["WT"]["dice"] is not None]
    for at, region in enumerate(scored[: len(scored) // 2 * 2]):
        region["dice"] -= 0.01 + 0.1 * (-1) ** at
    drops = {"max_drop": {"roc_auc": None, "dice_wt": 0.04}}
    by_value = judge(again, gate(champion=str(tmp_path), champion_rule=drops))
    by_bound = judge(again, gate(champion=str(tmp_path), champion_rule=drops | {"bound": "low"}))
    assert (by_value["passed"], by_bound["passed"]) == (True, False)
    assert "the interval of the gain reaches down to" in by_bound["reasons"][0]


def test_other_patients_are_compared_by_intervals(good: dict[str, Any], bad: dict[str, Any], tmp_path: Path) -> None:
    write_json(tmp_path / "metrics.json", make_metrics(20, seed=3, skill=0.9, name="stranger"))
    verdict = judge(bad, gate(champion=str(tmp_path)))
    assert verdict["champion"]["paired"] is False
    assert all("not paired)" in criterion["sentence"] for criterion in verdict["criteria"])
    old, new = (m["segmentation"]["WT"]["dice"] for m in (good, bad))
    gain = verdict["criteria"][1]
    spread = ((new["value"] - new["low"]) ** 2 + (old["high"] - old["value"]) ** 2) ** 0.5
    assert gain["low"] == pytest.approx(new["value"] - old["value"] - spread)


def test_a_bundle_is_a_champion(bad: dict[str, Any], tmp_path: Path) -> None:
    figures = {"roc_auc": figure(0.99, 0.98, 1.0, 20), "dice_wt": figure(0.9, 0.85, 0.95, 15)}
    write_json(tmp_path / "bundle.json", {"format": "slicewise-bundle", "metrics": figures})
    verdict = judge(bad, gate(champion=str(tmp_path)))
    assert verdict["champion"]["kind"] == "bundle"
    assert verdict["passed"] is False
    assert "against the champion's 0.900" in verdict["reasons"][-1]


def test_a_champion_without_the_figure_is_not_held_against_it(bad: dict[str, Any], tmp_path: Path) -> None:
    write_json(tmp_path / "bundle.json", {"metrics": {"roc_auc": figure(0.5, 0.4, 0.6, 20)}})
    verdict = judge(bad, gate(champion=str(tmp_path)))
    assert [criterion["passed"] for criterion in verdict["criteria"]] == [True, None]
    assert "cannot be compared" in verdict["criteria"][1]["sentence"]


@pytest.mark.parametrize(("content", "said"), [(None, "holds neither"), ("{", "is damaged"), ("[]", "is damaged")])
def test_a_champion_that_cannot_be_read(content: str | None, said: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "metrics.json").write_text(content)
    with pytest.raises(ConfigError, match=f"gate.champion: .*{said}"):
        judge(small_metrics(), gate(champion=str(tmp_path)))
    with pytest.raises(ConfigError, match="gate.champion"):
        check_gate(gate(champion=str(tmp_path)))
    check_gate(GateConfig())


def test_the_verdict_is_json_and_survives_one_patient() -> None:
    floor = [{"min": 0.5}]
    for metrics in (make_metrics(1), make_metrics(3, masks=False), make_metrics(3, one_class=True)):
        verdict = judge(metrics, gate(min_roc_auc=0.5, subgroups=floor, calibration={"max_ece": 0.5}))
        assert json.loads(json.dumps(verdict, allow_nan=False)) == verdict


def test_the_verb_takes_a_champion_and_fails_with_the_numbers(
    good: dict[str, Any], bad: dict[str, Any], tmp_path: Path
) -> None:
    write_json(tmp_path / "old" / "metrics.json", good)
    write_json(tmp_path / "new" / "metrics.json", bad)
    words = ["gate", "--evaluation", str(tmp_path / "new"), "--champion", str(tmp_path / "old"), "--json"]
    answer = CliRunner().invoke(build_app(), words)
    assert answer.exit_code == 1
    verdict = json.loads(answer.stdout)
    assert any("against the champion's" in reason for reason in verdict["reasons"])
    refused = CliRunner().invoke(
        build_app(), ["gate", "--evaluation", str(tmp_path / "new"), "--set", "gate.min_dice_wt=0.99"]
    )
    assert refused.exit_code == 1
    assert "refused: Dice of WT (patients) is 0." in refused.stdout
