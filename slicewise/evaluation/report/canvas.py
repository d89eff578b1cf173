"""Plots as SVG inside the page: sharp at any size, small, their text found by a search, their dots links."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, GREY, LINE, SOFT = "#1d3557", "#8a94a6", "#e3e8ee", "#a8c5da"
GOOD, BAD, NOTE = "#1a7f5a", "#b42318", "#c77700"
REGION_COLOURS = {"WT": "#1f8a7d", "TC": "#d18f00", "ET": "#cf2f3f"}
# Okabe and Ito's colours, told apart in all common kinds of colour blindness.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#5c5c5c")
WIDTH, HEIGHT = 5.2, 3.4
THIRD = 3.6
RIGHT, BOTTOM = 0.14, 0.48
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "slicewise",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 8,
}


@contextmanager
def drawing(
    width: float = WIDTH, height: float = HEIGHT, *, left: float = 0.62, top: float = 0.12
) -> Iterator[tuple[Figure, Axes]]:
    """An empty plot in the report's style; matplotlib's own settings are as before when the block ends.

    Margins are fixed: letting matplotlib find them takes as long as three drawings.

    Args:
        width: Of the whole, in inches.
        height: Likewise.
        left: Room for the labels on the left.
        top: Room above.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):  # type: ignore[arg-type]
        made = Figure(figsize=(width, height))
        share = (left / width, BOTTOM / height, (width - left - RIGHT) / width, (height - BOTTOM - top) / height)
        yield made, made.add_axes(share)


def room_for(labels: Iterable[str]) -> float:
    """Inches on the left that the longest of some labels needs."""
    return 0.25 + 0.073 * max(map(len, labels), default=0)


def to_svg(made: Figure, name: str, alt: str, tips: Mapping[str, str] | None = None) -> Markup:
    """A plot as an ``svg`` element; to be called within ``drawing``.

    Args:
        made: The plot.
        name: Of the plot; makes its ids differ from those of others on the page.
        alt: What a screen reader says.
        tips: Anchor → what appears when the pointer rests on the dot that links there.
    """
    buffer = io.StringIO()
    made.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return Markup(_inline(text[text.index("<svg") :], name, alt, tips or {}))  # escaped where it is put together


def _inline(text: str, name: str, alt: str, tips: Mapping[str, str]) -> str:
    """Make a file's SVG a part of a page: no name spaces, no ids but those in use, links with tips."""
    view = re.search(r'viewBox="([^"]+)"', text)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    used = set(re.findall(r"url\(#([^)]+)\)", text)) | set(re.findall(r'<use[^>]*xlink:href="#([^"]+)"', text))
    text = re.sub(r' id="([^"]+)"', lambda found: f' id="{name}-{found[1]}"' if found[1] in used else "", text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", text)
    text = re.sub(r'(<use[^>]*)xlink:href="#([^"]+)"', rf'\1href="#{name}-\2"', text)
    text = re.sub(r'<a xlink:href="#([^"]+)"[^>]*>', lambda found: _link(found[1], tips), text)
    opening = f'<svg class="plot-svg" role="img" aria-label="{escape(alt)}" viewBox="{view[1] if view else ""}">'
    return re.sub(r"<svg[^>]*>", lambda _: opening, text, count=1)


def _link(anchor: str, tips: Mapping[str, str]) -> str:
    tip = f"<title>{escape(tips[anchor])}</title>" if anchor in tips else ""
    return f'<a href="#{escape(anchor)}">{tip}'
