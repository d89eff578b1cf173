"""Reliability diagrams: probabilities against frequencies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from slicewise.config import REGIONS
from slicewise.evaluation.report.canvas import GREY, INK, REGION_COLOURS, SOFT, THIRD, WIDTH, drawing, to_svg
from slicewise.evaluation.report.plot import Plot, make_plot
from slicewise.evaluation.words import region_words, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Summary = Mapping[str, Any]


def calibration_plots(figures: Mapping[str, Any]) -> list[Plot]:
    """Of the slices with both kinds of bins, and of each region's pixels.

    Args:
        figures: The section ``calibration_figures``.
    """
    found = []
    tumour = (figures.get("tumour") or {}).get("test") or {}
    if _has_bins(tumour):
        of = _of(tumour["after"], "slices")
        for kind, bins in (("reliability", "bins"), ("reliability-adaptive", "adaptive_bins")):
            found.append(make_plot(kind, f"plot-{kind}", _diagram(f"plot-{kind}", tumour, bins, INK, WIDTH), of=of))
    for region in REGIONS:
        pixels = (figures.get(region) or {}).get("test") or {}
        if _has_bins(pixels):
            name, about = f"plot-reliability-{region.lower()}", f"{region_words(region)} ({region})"
            svg = _diagram(name, pixels, "bins", REGION_COLOURS[region], THIRD)
            of = _of(pixels["after"], "pixels")
            found.append(make_plot("reliability-region", name, svg, size="third", region=about, of=of))
    return found


def _has_bins(both: Mapping[str, Summary]) -> bool:
    return all((both.get(when) or {}).get("bins") for when in ("before", "after"))


def _of(after: Summary, things: str) -> str:
    return f"{after['n']} test {things} of {after['patients']} patients"


def _diagram(name: str, both: Mapping[str, Summary], kind: str, colour: str, width: float) -> Markup:
    key = "ece_adaptive" if kind == "adaptive_bins" else "ece"
    with drawing(width, 3.5, top=0.35) as (made, ax):
        ax.plot([0, 1], [0, 1], color=GREY, lw=0.8, ls=":")
        _counts(ax, both["after"].get(kind) or [])
        for when, style, tint in (("before", "--", GREY), ("after", "-", colour)):
            rows = both[when].get(kind) or []
            x, y = ([row[axis] for row in rows] for axis in ("probability", "frequency"))
            label = f"{when}: ECE {short(both[when]['figures'].get(key))}"
            ax.plot(x, y, style, marker="o", ms=4, color=tint, label=label)
        ax.set(xlim=(-0.02, 1.02), ylim=(-0.16, 1.02), xlabel="predicted probability", ylabel="observed frequency")
        ax.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1.0])
        ax.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, columnspacing=1.0, handlelength=1.6)
        return to_svg(made, name, "reliability diagram")


def _counts(ax: Axes, rows: Sequence[Mapping[str, float]]) -> None:
    """How many values each bin holds, under the curve."""
    most = max((row["n"] for row in rows), default=1)
    for row in rows:
        middle, width = (row["low"] + row["high"]) / 2, row["high"] - row["low"]
        ax.bar(middle, 0.1 * row["n"] / most, bottom=-0.155, width=0.92 * width, color=SOFT, lw=0)
        if width > 0.05:
            ax.text(middle, -0.045, _few(int(row["n"])), ha="center", va="bottom", fontsize=6.5, color=GREY)


def _few(count: int) -> str:
    """A count in at most four characters."""
    if count < 10_000:
        return str(count)
    return f"{count / 1000:.0f}k" if count < 1_000_000 else f"{count / 1e6:.0f}M"
