"""Learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from slicewise.evaluation.report.canvas import BAD, GREY, INK, REGION_COLOURS, SERIES, WIDTH, drawing, to_svg
from slicewise.evaluation.report.plot import Plot, make_plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Stage = Mapping[str, Any]
Line = tuple[str, str, str]
LOSSES: tuple[Line, ...] = (("train_loss", "training loss", INK), ("val_loss", "validation loss", BAD))
FIGURES: tuple[Line, ...] = (
    ("val_dice", "validation Dice (mean of regions)", REGION_COLOURS["WT"]),
    ("val_auc", "validation ROC-AUC", SERIES[5]),
)


def training_plots(training: Mapping[str, Any]) -> list[Plot]:
    """Figures of the epochs, and the loss of the optimiser steps where it was kept."""
    stages = [record for record in [*(training.get("before") or []), training] if record.get("history")]
    found = [_epochs(stages, "losses", LOSSES), _epochs(stages, "validation", FIGURES), _steps(stages)]
    return [plot for plot in found if plot is not None]


def _epochs(stages: Sequence[Stage], kind: str, lines: Sequence[Line]) -> Plot | None:
    if not any(row.get(key) is not None for stage in stages for row in stage["history"] for key, _, _ in lines):
        return None
    with drawing(top=0.3) as (made, ax):
        starts = _starts(ax, [(stage["stage"], len(stage["history"])) for stage in stages])
        for stage, start in zip(stages, starts, strict=True):
            for line in lines:
                _epoch_line(ax, stage, start, line)
        ax.set_xlabel("epoch")
        if kind == "validation":
            ax.set_ylim(0, 1.02)
        handles, labels = ax.get_legend_handles_labels()
        unique = dict(zip(labels, handles, strict=True))
        ax.legend(unique.values(), unique.keys(), loc="best")
        svg = to_svg(made, f"plot-{kind}", kind)
    return make_plot(kind, f"plot-{kind}", svg)


def _epoch_line(ax: Axes, stage: Stage, start: int, line: Line) -> None:
    """One figure of one stage, the epoch that is kept in a ring."""
    key, label, colour = line
    points = {start + at: row[key] for at, row in enumerate(stage["history"], 1) if row.get(key) is not None}
    if points:
        ax.plot(list(points), list(points.values()), marker="o", ms=3, lw=1.4, color=colour, label=label)
    best = start + (stage.get("best_epoch") or 0)
    if best in points:
        ax.plot(best, points[best], "o", ms=8, mfc="none", mec=colour)


def _starts(ax: Axes, lengths: Sequence[tuple[str, int]]) -> list[int]:
    """Where each stage begins, with a line between them and its name above."""
    starts, start = [], 0
    for name, length in lengths:
        if start:
            ax.axvline(start + 0.5, color=GREY, lw=0.8, ls=":")
        ax.text(start + 0.6, 1.01, name, transform=ax.get_xaxis_transform(), fontsize=7.5, color=GREY)
        starts.append(start)
        start += length
    return starts


def _steps(stages: Sequence[Stage]) -> Plot | None:
    """The smoothed loss of the optimiser steps."""
    curves = [(stage["stage"], stage["step_losses"]) for stage in stages if stage.get("step_losses")]
    if not curves:
        return None
    with drawing(2 * WIDTH, 2.6, top=0.3) as (made, ax):
        starts = _starts(ax, [(name, points[-1][0]) for name, points in curves])
        for (_, points), start in zip(curves, starts, strict=True):
            ax.plot([start + step for step, _ in points], [value for _, value in points], color=INK, lw=1.2)
        ax.set(xlabel="optimiser step", ylabel="training loss, smoothed")
        ax.set_ylim(bottom=0)
        svg = to_svg(made, "plot-steps", "loss by optimiser step")
    return make_plot("steps", "plot-steps", svg, size="wide")
