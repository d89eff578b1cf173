"""Plots of the classification: ROC, precision and recall, confusion, the scale of decisions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from slicewise.evaluation.report.canvas import BAD, GREY, INK, NOTE, SERIES, WIDTH, drawing, to_svg
from slicewise.evaluation.report.plot import Plot, make_plot
from slicewise.evaluation.shown_studies import Study
from slicewise.evaluation.words import interval, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEVELS = (("slice", "slices", INK), ("patient", "patients", SERIES[1]))
CLASSES = ("no tumour", "tumour")
BAND_WORDS = ' The band in which the model says "unsure" is shaded; it was fitted for single slices.'
Curve = tuple[Mapping[str, Any], str, str]


def classification_plots(classification: Mapping[str, Any]) -> list[Plot]:
    """ROC, precision-recall and confusion of slices and patients; nothing where no class is known."""
    reports = [(classification.get(key) or {}, words, colour) for key, words, colour in LEVELS]
    curves = [report for report in reports if report[0].get("roc", {}).get("fpr")]
    found = [_roc(curves), _precision_recall(curves)] if curves else []
    return found + [_confusion(report, words) for report, words, _ in reports if report.get("n")]


def _roc(curves: Sequence[Curve]) -> Plot:
    with drawing() as (made, ax):
        ax.plot([0, 1], [0, 1], color=GREY, lw=0.8, ls=":")
        for report, words, colour in curves:
            label = f"{words}: {interval(report['figures'].get('roc_auc'))}"
            ax.plot(report["roc"]["fpr"], report["roc"]["tpr"], color=colour, lw=1.8, label=label)
            _mark_threshold(ax, report, colour)
        ax.set(xlabel="1 − specificity", ylabel="sensitivity", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        ax.legend(loc="lower right", title="ROC-AUC")
        svg = to_svg(made, "plot-roc", "ROC curves")
    return make_plot("roc", "plot-roc", svg)


def _mark_threshold(ax: Axes, report: Mapping[str, Any], colour: str) -> None:
    (tn, fp), (fn, tp) = report["confusion"]
    if tn + fp and tp + fn:
        ax.plot(fp / (tn + fp), tp / (tp + fn), "o", ms=7, color=colour, markeredgecolor="white")


def _precision_recall(curves: Sequence[Curve]) -> Plot:
    with drawing() as (made, ax):
        for report, words, colour in curves:
            positive = report["n_positive"]
            tpr, fpr = np.array(report["roc"]["tpr"]), np.array(report["roc"]["fpr"])
            hits, alarms = tpr * positive, fpr * (report["n"] - positive)
            told = hits + alarms > 0
            label = f"{words}: {interval(report['figures'].get('pr_auc'))}"
            ax.plot(tpr[told], hits[told] / (hits + alarms)[told], color=colour, lw=1.8, label=label)
            ax.axhline(positive / report["n"], color=colour, lw=0.8, ls=":")
        ax.set(xlabel="recall (sensitivity)", ylabel="precision", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        ax.legend(loc="lower left", title="PR-AUC")
        svg = to_svg(made, "plot-pr", "precision and recall")
    return make_plot("precision-recall", "plot-pr", svg)


def _confusion(report: Mapping[str, Any], things: str) -> Plot:
    matrix = np.array(report["confusion"])
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    name = f"plot-confusion-{things}"
    with drawing(left=1.05) as (made, ax):
        ax.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for (row, column), share in np.ndenumerate(shares):
            ink = "white" if share > 0.6 else INK
            text = f"{matrix[row, column]}\n{share:.0%}"
            ax.text(column, row, text, ha="center", va="center", color=ink, fontsize=12)
        ax.set_xticks([0, 1], CLASSES)
        ax.set_yticks([0, 1], CLASSES)
        ax.set(xlabel="model says", ylabel="reference says")
        ax.spines[:].set_visible(False)
        ax.tick_params(length=0)
        svg = to_svg(made, name, f"confusion matrix of {things}")
    return make_plot("confusion", name, svg, things=things, n=report["n"], threshold=number(report["threshold"]))


def decision_plot(studies: Sequence[Study], decision: Mapping[str, Any]) -> Plot | None:
    """Every study's probability on one scale, with the threshold and the band of unsure answers.

    Args:
        studies: Of the test split.
        decision: ``threshold`` and, where there is one, ``abstain``.
    """
    told = [(s, s.probability, s.true) for s in studies if s.probability is not None and s.true is not None]
    if not told:
        return None
    band = decision.get("abstain") or {}
    with drawing(2 * WIDTH, 2.1, left=1.3, top=0.4) as (made, ax):
        if band.get("low") is not None:
            ax.axvspan(band["low"], min(band["high"], 1.0), color=NOTE, alpha=0.16, lw=0, label="unsure")
        ax.axvline(decision["threshold"], color=BAD, lw=1.4, label=f"threshold {number(decision['threshold'])}")
        for at, (truth, colour) in enumerate(((False, SERIES[0]), (True, SERIES[1]))):
            members = sorted(((p, s) for s, p, t in told if t is truth), key=lambda pair: (pair[0], pair[1].name))
            heights = [at + (place % 7 - 3) * 0.08 for place in range(len(members))]
            dots = ax.scatter([p for p, _ in members], heights, s=26, color=colour, alpha=0.8, edgecolors="white")
            dots.set_urls([f"#{s.pictures}" for _, s in members])
        counts = [sum(t is truth for _, _, t in told) for truth in (False, True)]
        ax.set_yticks([0, 1], [f"{name} (n={n})" for name, n in zip(CLASSES, counts, strict=True)])
        ax.set(
            xlim=(-0.02, 1.02), ylim=(-0.6, 1.6), xlabel="calibrated probability of tumour (most suspicious slice)"
        )
        ax.legend(loc="upper center", ncols=2, bbox_to_anchor=(0.5, 1.24))
        svg = to_svg(made, "plot-decision", "probabilities and decision", {s.pictures: s.tip for s, _, _ in told})
    return make_plot("decision", "plot-decision", svg, size="wide", band=BAND_WORDS if band else "")
