"""The report's plots, each as one PNG."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {"WT": "#2a9d8f", "TC": "#e9a100", "ET": "#d62839"}
INK = "#1d3557"
GREY = "#8a94a6"


def figure(width: float, height: float, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """An empty figure with ``columns`` axes, without any global state of matplotlib."""
    from matplotlib.figure import Figure

    made = Figure(figsize=(width, height), dpi=110, layout="constrained")
    axes = made.subplots(1, columns, squeeze=False)[0]
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
    return made, list(axes)


def to_png(made: Figure) -> str:
    """A figure as a ``data:`` address."""
    buffer = io.BytesIO()
    made.savefig(buffer, format="png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def learning_curves(training: dict[str, Any]) -> str | None:
    """Loss and validation figures over the epochs of all three stages; None when nothing was trained."""
    from matplotlib.ticker import MaxNLocator

    stages = [record for record in [*training["before"], training] if record["history"]]
    if not stages:
        return None
    made, (left, right) = figure(10, 3.4, 2)
    start = 0
    for record in stages:
        epochs = [start + row["epoch"] for row in record["history"]]
        for ax in (left, right):
            if start:
                ax.axvline(start + 0.5, color=GREY, lw=0.8, ls=":")
            ax.text(start + 0.6, 1.01, record["stage"], transform=ax.get_xaxis_transform(), fontsize=8, color=GREY)
        _line(left, epochs, record, "train_loss", "training loss", INK, start)
        _line(left, epochs, record, "val_loss", "validation loss", "#d62839", start)
        _line(right, epochs, record, "val_dice", "validation Dice (mean of regions)", "#2a9d8f", start)
        _line(right, epochs, record, "val_auc", "validation ROC-AUC", "#e9a100", start)
        start = epochs[-1]
    right.set_ylim(0, 1.02)
    for ax in (left, right):
        ax.set_xlabel("epoch")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        handles, labels = ax.get_legend_handles_labels()
        unique = dict(zip(labels, handles, strict=True))
        ax.legend(unique.values(), unique.keys(), frameon=False, fontsize=8)
    return to_png(made)


def _line(ax: Axes, epochs: list[int], record: dict[str, Any], key: str, label: str, colour: str, start: int) -> None:
    points = [(x, row[key]) for x, row in zip(epochs, record["history"], strict=True) if row[key] is not None]
    if points:
        ax.plot(*zip(*points, strict=True), marker="o", ms=3.5, color=colour, label=label)


def roc_and_confusion(report: dict[str, Any]) -> str:
    """The ROC curve with the decision threshold marked, and the confusion matrix."""
    made, (left, right) = figure(10, 4.0, 2)
    roc, auc = report["roc"], report["figures"]["roc_auc"]
    left.plot([0, 1], [0, 1], color=GREY, lw=0.8, ls=":")
    if roc["fpr"]:
        left.plot(roc["fpr"], roc["tpr"], color=INK, lw=2, label=f"ROC-AUC {interval(auc)}")
        (tn, fp), (fn, tp) = report["confusion"]
        left.plot(fp / (tn + fp), tp / (tp + fn), "o", ms=8, color="#d62839", label="decision threshold")
        left.legend(frameon=False, loc="lower right", fontsize=9)
    else:
        left.text(0.5, 0.5, "undefined: one class only", ha="center")
    left.set(xlabel="1 - specificity", ylabel="sensitivity", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    left.set_aspect("equal")
    matrix = np.array(report["confusion"])
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    right.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row in range(2):
        for column in range(2):
            ink = "white" if shares[row, column] > 0.6 else INK
            text = f"{matrix[row, column]}\n{shares[row, column]:.0%}"
            right.text(column, row, text, ha="center", va="center", color=ink, fontsize=13)
    right.set_xticks([0, 1], ["no tumour", "tumour"])
    right.set_yticks([0, 1], ["no tumour", "tumour"])
    right.set(xlabel="model says", ylabel="reference says")
    return to_png(made)


def reliability(before: dict[str, Any], after: dict[str, Any]) -> str:
    """Reliability diagrams before and after calibration, with the count of every bin."""
    made, axes = figure(10, 4.0, 2)
    for ax, figures, title in zip(axes, (before, after), ("before", "after"), strict=True):
        bins = figures["bins"]
        ax.plot([0, 1], [0, 1], color=GREY, lw=0.8, ls=":")
        for b in bins:
            ax.bar(
                (b["low"] + b["high"]) / 2,
                b["frequency"],
                width=0.9 * (b["high"] - b["low"]),
                color="#a8c5da",
            )
            ax.text((b["low"] + b["high"]) / 2, 0.01, str(b["n"]), ha="center", fontsize=7, color=INK)
        ax.plot([b["probability"] for b in bins], [b["frequency"] for b in bins], "o-", color=INK, ms=4)
        ax.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="predicted probability", ylabel="observed frequency")
        ax.set_title(f"{title}: ECE {figures['ece']:.3f}, NLL {figures['nll']:.3f}", fontsize=10)
    return to_png(made)


def dice_by_study(studies: list[dict[str, Any]]) -> str | None:
    """Every test study's Dice by region, as dots, with the mean."""
    made, (ax,) = figure(10, 2.6)
    drawn = False
    for row, name in enumerate(reversed(COLOURS)):
        values = [study[name]["dice"] for study in studies if study[name]["dice"] is not None]
        if values:
            drawn = True
            spread = np.linspace(-0.16, 0.16, len(values)) if len(values) > 1 else np.zeros(1)
            ax.plot(values, row + spread, "o", color=COLOURS[name], alpha=0.75, ms=6)
            ax.plot([np.mean(values)] * 2, [row - 0.3, row + 0.3], color=INK, lw=2)
    if not drawn:
        return None
    ax.set_yticks(range(3), list(reversed(COLOURS)))
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.5, 2.5), xlabel="Dice (one dot per test study; the bar is the mean)")
    ax.grid(axis="x", color="#e6e9ef")
    return to_png(made)


def interval(figure_: dict[str, Any] | None, digits: int = 3) -> str:
    """``0.912 (0.87–0.95, n=12)``, or a dash where the figure is undefined."""
    if not figure_ or figure_["value"] is None:
        return "–"
    text = f"{figure_['value']:.{digits}f}"
    if figure_["low"] is None:
        return f"{text} (n={figure_['n']})"
    return f"{text} ({figure_['low']:.2f}–{figure_['high']:.2f}, n={figure_['n']})"
