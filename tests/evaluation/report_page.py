"""Reading a page as a browser does, for the tests of the report."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import html5lib
import numpy as np
from numpy.typing import NDArray

HTML = "{http://www.w3.org/1999/xhtml}"


def parse(page: str) -> Any:
    """The page's tree; a page that breaks the rules of HTML is an error."""
    parser = html5lib.HTMLParser(strict=True)
    return parser.parse(page)


def attributes(tree: Any) -> Iterator[tuple[str, str, str]]:
    """Tag, name and value of every attribute."""
    for element in tree.iter():
        if isinstance(element.tag, str):
            tag = element.tag.rpartition("}")[2]
            for name, value in element.attrib.items():
                yield tag, name.rpartition("}")[2], value


def texts_of(tree: Any) -> str:
    """All text that a reader sees, with single spaces."""
    for element in tree.iter():
        if element.tag in (f"{HTML}script", f"{HTML}style"):
            element.text = ""
    return re.sub(r"\s+", " ", " ".join(tree.itertext()))


def by_id(tree: Any, wanted: str) -> Any:
    """The element with an id."""
    return next(element for element in tree.iter() if element.attrib.get("id") == wanted)


def made_slice(seed: int = 0, size: int = 64) -> dict[str, NDArray[Any]]:
    """Arrays for ``draw_study``: two sequences, a tumour of three regions and a shifted answer."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:size, 0:size] / size - 0.5
    head = (x / 0.36) ** 2 + (y / 0.44) ** 2 < 1
    distance = np.hypot(x - 0.1, y)
    reference = np.stack([(distance < radius) & head for radius in (0.15, 0.1, 0.05)])
    planes = np.stack([(rng.normal(1, 0.1, (size, size)) + shade * reference[0]) * head for shade in (0.8, 0.3)])
    predicted = np.roll(reference, 3, axis=2) & head
    return {
        "planes": planes.astype(np.float32),
        "reference": reference,
        "predicted": predicted,
        "evidence": (np.exp(-(distance**2) * 30) * head).astype(np.float32),
        "uncertainty": ((reference[0] ^ predicted[0]) * np.log(2)).astype(np.float32),
    }
