"""A plot of the page, with the words around it."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from importlib import resources
from typing import Literal

import yaml
from markupsafe import Markup

Size = Literal["wide", "half", "third"]


@dataclass(frozen=True)
class Plot:
    """One plot of the page.

    Attributes:
        name: Its anchor.
        title: Above it.
        svg: The picture.
        shows: What is drawn.
        look: What the reader should look for.
        size: ``wide`` takes the page's whole width, ``half`` half of it, ``third`` a third.
    """

    name: str
    title: str
    svg: Markup
    shows: str
    look: str
    size: Size = "half"


def make_plot(kind: str, name: str, svg: Markup, *, size: Size = "half", **fields: object) -> Plot:
    """A picture with its caption.

    Args:
        kind: A key of ``captions.yaml``.
        name: Anchor of the plot.
        svg: The picture.
        size: How much of the page's width it takes.
        fields: What the caption's ``{fields}`` stand for.
    """
    words = {key: text.format(**fields) for key, text in captions()[kind].items()}
    return Plot(name, words["title"], svg, words["shows"], words["look"], size)


@functools.cache
def captions() -> dict[str, dict[str, str]]:
    """The words of every kind of plot."""
    text = resources.files(__package__).joinpath("captions.yaml").read_text(encoding="utf-8")
    found: dict[str, dict[str, str]] = yaml.safe_load(text)
    return found
