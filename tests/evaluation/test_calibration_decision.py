"""The rules that choose the decision threshold."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from slicewise.config import CalibrateConfig
from slicewise.evaluation.decision import choose_threshold


def test_threshold_rules_of_a_table() -> None:
    p = np.array([0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9], dtype=np.float32)
    truth = np.array([0, 0, 1, 0, 0, 1, 1, 1], dtype=np.float32)
    youden = choose_threshold(p, truth, CalibrateConfig())
    assert 0.6 < youden.value < 0.7
    sensitive = choose_threshold(p, truth, CalibrateConfig(threshold_rule="sensitivity", target_sensitivity=1.0))
    assert 0.2 < sensitive.value < 0.3
    cost = choose_threshold(p, truth, CalibrateConfig(threshold_rule="cost", cost_fn=4.0, cost_fp=1.0))
    assert cost.value == pytest.approx(0.2)
    assert cost.rule == "a miss costs 4, a false alarm 1"


def calibrated(n: int = 300) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    probability = rng.random(n).astype(np.float32)
    return probability, (rng.random(n) < probability).astype(np.float32)


@pytest.mark.parametrize("target", [0.5, 0.8, 0.95, 1.0])
def test_the_sensitivity_rule_reaches_its_target(target: float) -> None:
    """And the next higher score would not."""
    probability, truth = calibrated()
    config = CalibrateConfig(threshold_rule="sensitivity", target_sensitivity=target)
    value = choose_threshold(probability, truth, config).value
    positive = probability[truth == 1]
    assert (positive >= value).mean() >= target
    higher = positive[positive >= value].min()
    assert (positive > higher).mean() < target


def test_no_threshold_has_a_higher_youden_index() -> None:
    probability, truth = calibrated()
    value = choose_threshold(probability, truth, CalibrateConfig()).value
    found = balanced_accuracy_score(truth, probability >= value)
    assert found == max(balanced_accuracy_score(truth, probability >= cut) for cut in probability)


@pytest.mark.parametrize(("cost_fn", "cost_fp"), [(1.0, 1.0), (9.0, 1.0), (1.0, 3.0)])
def test_the_cost_rule_costs_least(cost_fn: float, cost_fp: float) -> None:
    """Of calibrated probabilities: no other threshold is cheaper, but for the noise of 200,000 draws."""
    probability, truth = calibrated(200_000)
    config = CalibrateConfig(threshold_rule="cost", cost_fn=cost_fn, cost_fp=cost_fp)
    value = choose_threshold(probability, truth, config).value

    def cost(cut: float) -> float:
        said = probability >= cut
        return float(np.mean(cost_fn * ((truth == 1) & ~said) + cost_fp * ((truth == 0) & said)))

    assert cost(value) <= min(cost(cut) for cut in np.linspace(0.02, 0.98, 49)) + 2e-3
    assert cost(value) < min(cost(value - 0.2), cost(value + 0.2))


@pytest.mark.parametrize("rule", ["youden", "sensitivity"])
@pytest.mark.parametrize(
    ("truth", "said"), [([1, 1], "one class only"), ([0, 0], "one class only"), ([], "no slice of known class")]
)
def test_without_both_classes_the_threshold_is_the_default(truth: list[int], said: str, rule: str) -> None:
    probability = np.linspace(0.2, 0.9, len(truth)).astype(np.float32)
    config = CalibrateConfig(threshold_rule=rule)
    made = choose_threshold(probability, np.array(truth, dtype=np.float32), config)
    assert made.value == 0.5
    assert made.rule == f"default: validation has {said}"


def test_the_cost_rule_needs_no_data() -> None:
    config = CalibrateConfig(threshold_rule="cost", cost_fn=1.0, cost_fp=1.0)
    assert choose_threshold(np.zeros(0), np.zeros(0), config).value == 0.5
