"""One slice of a test study as a picture: images, reference, model, mistakes, evidence and uncertainty."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from slicewise import RESEARCH_USE
from slicewise.config import REGIONS
from slicewise.evaluation.overlay_layers import (
    COLOURS,
    COOL,
    EXTRA,
    HEAT,
    MISSED,
    Mask,
    Plane,
    Rgb,
    grey,
    paint_errors,
    paint_heat,
    paint_regions,
    ramp,
)
from slicewise.files import atomic_path

PANEL, GAP, LABEL, TITLE, FOOT = 216, 6, 18, 22, 18
BACK, INK, SOFT = (10, 13, 18), (235, 240, 246), (150, 160, 172)
SHOWN_FIRST = ("flair", "t1ce", "t1", "t2")
FIRST_ROW = 2
LN2 = math.log(2)
FORMATS: dict[str, tuple[str, dict[str, int]]] = {
    ".webp": ("WEBP", {"quality": 68, "method": 2}),
    ".jpg": ("JPEG", {"quality": 80}),
    ".png": ("PNG", {"compress_level": 3}),
}


@dataclass(frozen=True)
class _Panel:
    """One square of the picture and what stands above it."""

    label: str
    picture: Rgb
    scale: tuple[tuple[tuple[int, int, int], ...], str] | None = None


def draw_study(
    planes: Plane,
    modalities: tuple[str, ...],
    predicted: Mask,
    *,
    reference: Mask | None = None,
    known: Mask | None = None,
    evidence: Plane | None = None,
    uncertainty: Plane | None = None,
    title: str = "",
) -> Image.Image:
    """Draw one slice.

    Args:
        planes: ``[C, H, W]`` as the network gets them: 0 outside the head and in missing modalities.
        modalities: Their names, in order.
        predicted: ``[3, H, W]`` the model's regions WT, TC, ET.
        reference: ``[3, H, W]``; None where the study has no mask.
        known: ``[3]`` the regions that the mask tells; None for all.
        evidence: ``[H, W]`` in 0..1, what speaks for tumour; None leaves the panel out.
        uncertainty: ``[H, W]`` entropy in nats, 0 to ln 2; None leaves the panel out.
        title: What is written above.

    Returns:
        An RGB picture, a row of three or four squares, or two; the patient's right is on the left.
    """
    told = np.ones(len(REGIONS), dtype=bool) if known is None else np.asarray(known, dtype=bool)
    images = _images(planes, modalities)
    base = images[0].picture
    head: Mask = base.max(axis=2) > 0
    panels = images[:FIRST_ROW]
    maps = []
    if reference is not None and told.any():
        wanted, mistakes = _with_reference(base, np.asarray(reference, dtype=bool), predicted, told)
        panels, maps = [*panels, wanted], [mistakes]
    panels.append(_Panel("model", paint_regions(base, predicted)))
    if evidence is not None:
        maps.append(_Panel("evidence for tumour", paint_heat(base, evidence, 1.0, HEAT, head), (HEAT, "0 to 1")))
    if uncertainty is not None:
        heat = paint_heat(base, uncertainty, LN2, COOL, head)
        maps.append(_Panel("uncertainty (WT)", heat, (COOL, "0 to ln 2")))
    # A third image where it fills the grid: T1 beside contrast-enhanced T1 shows what enhances.
    spare = images[FIRST_ROW : FIRST_ROW + 1] if len(panels) + len(maps) == 2 * len(panels) - 1 else []
    return _compose([*panels, *spare, *maps], title)


def save_picture(picture: Image.Image, path: Path) -> Path:
    """Write a picture atomically as its suffix says: ``.webp`` (small), ``.jpg`` or ``.png`` (exact)."""
    name, settings = FORMATS[path.suffix]
    with atomic_path(path) as temporary:
        picture.save(temporary, name, **settings)
    return path


def _images(planes: Plane, modalities: tuple[str, ...]) -> list[_Panel]:
    """The images, the most telling first: FLAIR for the whole tumour, contrast-enhanced T1 for the core."""
    there = {name: plane for name, plane in zip(modalities, planes, strict=True) if np.any(plane)}
    order = [name for name in SHOWN_FIRST if name in there] + [name for name in there if name not in SHOWN_FIRST]
    if not order:
        return [_Panel("no image", np.zeros((PANEL, PANEL, 3), dtype=np.uint8))]
    return [_Panel(name.upper(), grey(there[name], PANEL)) for name in order[: FIRST_ROW + 1]]


def _with_reference(base: Rgb, reference: Mask, predicted: Mask, told: Mask) -> tuple[_Panel, _Panel]:
    names = [name for name, known in zip(REGIONS, told, strict=True) if known]
    label = "reference" if len(names) == len(REGIONS) else f"reference ({', '.join(names)} only)"
    first = REGIONS.index(names[0])
    return (
        _Panel(label, paint_regions(base, reference & told[:, None, None])),
        _Panel(f"mistakes in {names[0]}", paint_errors(base, reference[first], predicted[first])),
    )


def _compose(panels: list[_Panel], title: str) -> Image.Image:
    columns = len(panels) if len(panels) <= 4 else math.ceil(len(panels) / 2)
    rows = math.ceil(len(panels) / columns)
    width = columns * (PANEL + GAP) + GAP
    height = TITLE + rows * (LABEL + PANEL + GAP) + FOOT
    picture = Image.new("RGB", (width, height), BACK)
    draw = ImageDraw.Draw(picture)
    _write(draw, (GAP, 4), title, 13, INK, width - 2 * GAP)
    for at, panel in enumerate(panels):
        left = GAP + at % columns * (PANEL + GAP)
        top = TITLE + at // columns * (LABEL + PANEL + GAP)
        _place(picture, draw, panel, left, top)
    _legend(draw, width, height - FOOT + 1)
    return picture


def _place(picture: Image.Image, draw: ImageDraw.ImageDraw, panel: _Panel, left: int, top: int) -> None:
    _write(draw, (left, top + 2), panel.label, 12, SOFT, PANEL)
    if panel.scale is not None:
        anchors, text = panel.scale
        words = _font(11).getlength(text)
        bar = np.repeat(ramp(anchors)[None, ::4], 8, axis=0)
        at = left + PANEL - int(words) - bar.shape[1] - 6
        picture.paste(Image.fromarray(bar), (at, top + 5))
        _write(draw, (at + bar.shape[1] + 5, top + 2), text, 11, SOFT, PANEL)
    picture.paste(Image.fromarray(panel.picture), (left, top + LABEL))
    _write(draw, (left + 4, top + LABEL + 3), "R", 11, SOFT, PANEL)


def _legend(draw: ImageDraw.ImageDraw, width: int, top: int) -> None:
    """What the colours mean, as far as there is room, and that this is no diagnosis."""
    left = GAP
    end = width - GAP - int(_font(11).getlength(RESEARCH_USE))
    entries = [*COLOURS.items(), ("model only", EXTRA), ("missed", MISSED)]
    for name, colour in entries:
        step = 14 + int(_font(11).getlength(name)) + 10
        if left + step > end - 8:
            break
        draw.rectangle((left, top + 4, left + 9, top + 12), fill=colour)
        _write(draw, (left + 13, top + 1), name, 11, SOFT, width)
        left += step
    _write(draw, (end, top + 1), RESEARCH_USE, 11, SOFT, width)


def _write(
    draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, size: int, colour: tuple[int, int, int], room: int
) -> None:
    """Write one line, cut off where there is no room."""
    font = _font(size)
    line = " ".join(text.split())
    while line and font.getlength(line) > room:
        line = line[:-2].rstrip("…") + "…" if len(line) > 2 else ""
    draw.text(at, line, fill=colour, font=font)


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's own font, the same on every machine."""
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font
