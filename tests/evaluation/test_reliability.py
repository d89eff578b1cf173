"""Calibration figures against other implementations, tables, and the sampling of pixels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy.special import expit, logit
from scipy.stats import norm
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss
from torchmetrics.functional.classification import binary_calibration_error

from slicewise.config import EvaluateConfig
from slicewise.evaluation.calibration_report import FIGURES, NO_PIXELS, before_and_after, summarise
from slicewise.evaluation.intervals import bootstrap
from slicewise.evaluation.outputs import BACKGROUND_PIXELS, FOREGROUND_PIXELS, MARGIN, foreground_of, sample_pixels
from slicewise.evaluation.reliability import (
    bin_sums,
    brier_parts,
    describe_bins,
    equal_mass,
    equal_width,
    expected_calibration_error,
    gaps,
    log_losses,
)
from slicewise.evaluation.scored import Scored
from slicewise.inference.calibration import Calibrator, TemperatureMap

CONFIG = EvaluateConfig(bootstrap=200)


def sample(n: int = 1000, seed: int = 0, patients: int = 20) -> Scored:
    """Over-confident logits."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(-0.5, 2, n).astype(np.float32)
    truth = (rng.random(n) < expit(0.5 * logits)).astype(np.float32)
    return Scored.of(logits, truth, [f"p{at % patients:02}" for at in range(n)])


def values(summary: dict) -> dict[str, float]:
    return {name: figure["value"] for name, figure in summary["figures"].items()}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("n_bins", [5, 10, 15])
def test_figures_equal_torchmetrics_and_scikit_learns(seed: int, n_bins: int) -> None:
    scored = sample(seed=seed)
    p = Calibrator().apply(scored.logits)
    found = values(summarise(scored, p, EvaluateConfig(bootstrap=100, n_bins=n_bins)))
    tensors = torch.from_numpy(p), torch.from_numpy(scored.truth).int()
    assert found["ece"] == pytest.approx(float(binary_calibration_error(*tensors, n_bins, "l1")), abs=1e-5)
    assert found["mce"] == pytest.approx(float(binary_calibration_error(*tensors, n_bins, "max")), abs=1e-5)
    assert found["brier"] == pytest.approx(brier_score_loss(scored.truth, p), rel=1e-6)
    assert found["nll"] == pytest.approx(log_loss(scored.truth, p.astype(float)), rel=1e-6)


@pytest.mark.parametrize(("key", "strategy"), [("bins", "uniform"), ("adaptive_bins", "quantile")])
def test_bins_equal_scikit_learns(key: str, strategy: str) -> None:
    scored = sample(seed=3)
    p = Calibrator().apply(scored.logits)
    rows = summarise(scored, p, CONFIG)[key]
    frequency, probability = calibration_curve(scored.truth, p, n_bins=10, strategy=strategy)
    np.testing.assert_allclose([row["frequency"] for row in rows], frequency, atol=1e-6)
    np.testing.assert_allclose([row["probability"] for row in rows], probability, atol=1e-6)
    assert sum(row["n"] for row in rows) == 1000
    if strategy == "quantile":
        assert {row["n"] for row in rows} == {100}


def test_figures_of_a_table() -> None:
    """Ten at 0.15 with two positives, thirty at 0.85 with eighteen: half are positive.

    Gaps 0.05 and 0.25. Reliability (10 · 0.05² + 30 · 0.25²) / 40 = 0.0475, resolution
    (10 · 0.3² + 30 · 0.1²) / 40 = 0.03, uncertainty 0.25. The values of a bin are equal: nothing is left within.
    """
    p = np.array([0.15] * 10 + [0.85] * 30, dtype=np.float32)
    truth = np.array([1] * 2 + [0] * 8 + [1] * 18 + [0] * 12, dtype=np.float32)
    found = values(summarise(Scored.of(p, truth, [f"p{at % 4}" for at in range(40)]), p, CONFIG))
    expected = {
        "ece": 0.2,
        "mce": 0.25,
        "brier_reliability": 0.0475,
        "brier_resolution": 0.03,
        "brier_uncertainty": 0.25,
        "brier_within_bins": 0.0,
        "brier": 0.2675,
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-6)


def test_the_remainder_is_the_variance_and_covariance_within_bins() -> None:
    """Stephenson, Coelho and Jolliffe (2008), equation by equation."""
    scored = sample(seed=8)
    p, y = expit(scored.logits.astype(np.float64)), scored.truth
    remainder = 0.0
    for at in np.unique(equal_width(p, 10).index):
        inside = equal_width(p, 10).index == at
        spread, outcome = p[inside] - p[inside].mean(), y[inside] - y[inside].mean()
        remainder += (spread**2).sum() - 2 * (spread * outcome).sum()
    found = values(summarise(scored, p.astype(np.float32), CONFIG))
    assert found["brier_within_bins"] == pytest.approx(remainder / len(p), abs=1e-6)


PAIRS = st.integers(1, 80).flatmap(
    lambda n: st.tuples(
        hnp.arrays(np.float32, n, elements=st.floats(0, 1, width=32)),
        hnp.arrays(np.float32, n, elements=st.sampled_from([0.0, 1.0])),
        hnp.arrays(np.float32, n, elements=st.floats(0.5, 200, width=32)),
    )
)


@given(PAIRS, st.integers(2, 15))
def test_whatever_the_values(triple: tuple[NDArray[np.float32], ...], n_bins: int) -> None:
    """MCE is the largest gap; the parts of the Brier score are shares; every value is in one bin."""
    p, truth, weights = triple
    everyone = np.zeros(len(p), dtype=np.intp)
    for bins in (equal_width(p, n_bins), equal_mass(p, weights, n_bins)):
        sums = bin_sums(bins, p, truth, weights, everyone)[0]
        ece, mce = gaps(sums)
        assert 0 <= ece <= mce + 1e-9 <= 1 + 1e-6
        reliability, resolution, uncertainty = brier_parts(sums)
        assert 0 <= reliability <= 1 + 1e-6
        assert 0 <= resolution <= uncertainty + 1e-9 <= 0.25 + 2e-9
        rows = describe_bins(bins, sums)
        assert sum(row["n"] for row in rows) == len(p)
        assert sum(row["share"] for row in rows) == pytest.approx(1)
        assert all(row["low"] - 1e-6 <= row["probability"] <= row["high"] + 1e-6 for row in rows)


def test_equal_values_share_a_bin() -> None:
    p = np.array([0.1] * 7 + [0.2, 0.3, 0.4], dtype=np.float32)
    bins = equal_mass(p, np.ones(10), 5)
    assert bins.index.tolist() == [0] * 7 + [1, 2, 2]
    alone = equal_mass(np.full(6, 0.5, dtype=np.float32), np.ones(6), 5)
    assert len(set(alone.index)) == 1


@pytest.mark.parametrize(
    ("name", "figure"),
    [
        ("brier", lambda p, y: float(np.mean((p.astype(np.float64) - y) ** 2))),
        ("nll", lambda p, y: float(np.mean(log_losses(p, y)))),
        ("ece", lambda p, y: expected_calibration_error(p, y, 10)),
    ],
)
def test_intervals_are_those_of_the_slow_bootstrap(
    name: str, figure: Callable[[NDArray[np.float32], NDArray[np.float32]], float]
) -> None:
    scored = sample(400, patients=7)
    p = Calibrator().apply(scored.logits)
    slow = bootstrap(lambda rows: figure(p[rows], scored.truth[rows]), scored.groups.tolist(), 200, 0.95)
    found = summarise(scored, p, CONFIG)["figures"][name]
    assert (found["value"], found["n"]) == (pytest.approx(slow.value, abs=1e-6), 7)
    assert (found["low"], found["high"]) == pytest.approx((slow.low, slow.high), abs=1e-6)


def test_an_interval_holds_its_figure() -> None:
    """All draws of a small calibration error may lie above it, as each adds noise."""
    rng = np.random.default_rng(0)
    p = rng.uniform(0, 1, 20000).astype(np.float32)
    truth = (rng.random(20000) < p).astype(np.float32)
    figures = summarise(Scored.of(p, truth, [f"p{at // 100}" for at in range(20000)]), p, CONFIG)["figures"]
    for figure in figures.values():
        assert figure["low"] <= figure["value"] <= figure["high"]


def test_a_weight_counts_like_so_many_values() -> None:
    scored = sample(300, seed=5)
    counts = np.random.default_rng(1).integers(1, 4, 300)
    weighted = Scored(scored.logits, scored.truth, scored.groups, counts.astype(np.float32))
    repeated = scored.take(np.repeat(np.arange(300), counts))
    one, other = (summarise(each, Calibrator().apply(each.logits), CONFIG) for each in (weighted, repeated))
    assert values(one) == pytest.approx(values(other), abs=1e-6)
    assert one["n"] == 300
    assert [row["share"] for row in one["bins"]] == pytest.approx([row["share"] for row in other["bins"]])


def test_before_and_after_of_masks_and_slices() -> None:
    scored = sample(200)
    made = Calibrator(method="temperature", parameters=TemperatureMap(temperature=2.0))
    plain = before_and_after(scored, made, CONFIG)
    assert set(plain) == {"before", "after"}
    assert values(plain["after"])["nll"] < values(plain["before"])["nll"]
    foreground = scored.logits >= 0
    pixels = Scored(scored.logits, scored.truth, scored.groups, scored.weights, foreground)
    found = before_and_after(pixels, made, CONFIG)
    assert set(found) == {"before", "after", "foreground_before", "foreground_after"}
    inside = scored.take(foreground)
    assert found["foreground_after"] == summarise(inside, made.apply(inside.logits), CONFIG)


def test_undefined_figures() -> None:
    """No value: all None. One class, one patient: defined, without an interval."""
    for figures in before_and_after(NO_PIXELS, Calibrator(), CONFIG).values():
        assert (figures["n"], figures["patients"], figures["bins"], figures["adaptive_bins"]) == (0, 0, [], [])
        assert set(figures["figures"]) == set(FIGURES)
        assert all(figure["value"] is None for figure in figures["figures"].values())
    alone = Scored.of(np.array([0.0, 1.0], np.float32), np.zeros(2, np.float32), ["p", "p"])
    found = summarise(alone, Calibrator().apply(alone.logits), CONFIG)["figures"]
    assert found["brier_uncertainty"]["value"] == 0
    assert all(figure["value"] is not None and figure["low"] is None for figure in found.values())


def a_plane(n: int = 3000) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    rng = np.random.default_rng(2)
    logits = rng.normal(-3, 2, n).astype(np.float32)
    return logits, (rng.random(n) < expit(logits)).astype(np.float32), rng.random(n) < 0.8


def test_weighted_pixels_stand_for_all_of_the_head() -> None:
    """Foreground is drawn far more often than it occurs, and neither frequency nor NLL notice."""
    logits, truth, inside = a_plane()
    rng = np.random.default_rng(0)
    drawn = [sample_pixels(logits, truth, (truth > 0) | (logits >= 0), inside, 4, rng) for _ in range(400)]
    losses = [
        np.average(-np.log(np.where(one.truth > 0, expit(one.logits), expit(-one.logits))), weights=one.weights)
        for one in drawn
    ]
    expected = np.mean(log_losses(expit(logits[inside]), truth[inside]))
    assert np.mean(losses) == pytest.approx(expected, abs=4 * np.std(losses) / np.sqrt(400))
    frequency = np.mean([np.average(one.truth, weights=one.weights) for one in drawn])
    assert frequency == pytest.approx(truth[inside].mean(), rel=0.02)
    assert np.mean([one.truth.mean() for one in drawn]) > 2 * truth[inside].mean()


def test_a_sample_of_pixels() -> None:
    logits, truth, inside = a_plane()
    near = logits >= 0
    found = sample_pixels(logits, truth, near, inside, 4, np.random.default_rng(0))
    assert len(found) == FOREGROUND_PIXELS + BACKGROUND_PIXELS
    assert found.weights.sum() == pytest.approx(inside.sum())
    assert set(found.groups.tolist()) == {4}
    np.testing.assert_array_equal(found.foreground, found.logits >= 0)
    assert found.foreground.sum() == FOREGROUND_PIXELS
    little = np.arange(len(truth)) < 60
    all_of_it = sample_pixels(logits, truth, little, inside, 0, np.random.default_rng(0))
    assert all_of_it.foreground.sum() == (little & inside).sum() < FOREGROUND_PIXELS
    assert (all_of_it.weights[all_of_it.foreground] == 1).all()
    nothing = sample_pixels(logits, truth, near, np.zeros_like(inside), 0, np.random.default_rng(0))
    assert len(nothing) == 0


def test_the_foreground_is_tumour_and_its_margin_inside_the_head() -> None:
    """One reference pixel, one predicted pixel, and one predicted outside the head, which counts for nothing."""
    truth, logits = torch.zeros(1, 3, 40, 40), torch.full((1, 3, 40, 40), -4.0)
    head = torch.ones(1, 1, 40, 40, dtype=torch.bool)
    head[..., 30:] = False
    truth[0, 0, 10, 10], logits[0, 1, 20, 28], logits[0, 2, 20, 35] = 1.0, 0.0, 9.0
    found = foreground_of(logits, truth, head)[0].numpy()
    expected = np.zeros((3, 40, 40), dtype=bool)
    expected[0, 10 - MARGIN : 11 + MARGIN, 10 - MARGIN : 11 + MARGIN] = True
    expected[1, 20 - MARGIN : 21 + MARGIN, 28 - MARGIN : 30] = True
    np.testing.assert_array_equal(found, expected)


def test_a_calibrated_map_is_calibrated_near_tumour() -> None:
    """Discs whose radius is unknown to a pixel: with the margin the gap is small, without it one side is certain."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:64, :64]
    distance = np.hypot(rows - 32, columns - 32)
    truth = np.stack([distance < radius for radius in rng.normal(15, 3, 400)])
    p = norm.cdf((15 - distance) / 3).clip(1e-6, 1 - 1e-6)
    logits = torch.from_numpy(np.broadcast_to(logit(p), truth.shape).astype(np.float32)).unsqueeze(1)
    head = torch.ones(400, 1, 64, 64, dtype=torch.bool)
    near = foreground_of(logits, torch.from_numpy(truth).float().unsqueeze(1), head)[:, 0].numpy()
    only = truth | (logits[:, 0].numpy() >= 0)
    everywhere = np.broadcast_to(p, truth.shape)
    found = [
        expected_calibration_error(everywhere[part].astype(np.float32), truth[part].astype(np.float32), 10)
        for part in (np.ones_like(truth), near, only)
    ]
    assert found[0] < 0.01
    assert found[1] < 0.02
    assert found[2] > 0.1
