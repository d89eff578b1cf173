"""Pictures of slices: what is drawn where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image
from report_page import made_slice

from slicewise.evaluation.overlay_layers import (
    COLOURS,
    EXTRA,
    HEAT,
    MISSED,
    grey,
    outline,
    paint_errors,
    paint_heat,
    paint_regions,
    ramp,
    rgb,
)
from slicewise.evaluation.overlays import GAP, LABEL, PANEL, TITLE, draw_study, save_picture

TWO = ("flair", "t1ce")


def panel(picture: Image.Image, column: int, row: int = 0) -> NDArray[np.uint8]:
    left = GAP + column * (PANEL + GAP)
    top = TITLE + row * (LABEL + PANEL + GAP) + LABEL
    return np.asarray(picture)[top : top + PANEL, left : left + PANEL]


def coloured(pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return np.ptp(pixels.astype(int), axis=-1) > 40


def test_every_panel_is_there_and_in_its_place() -> None:
    made = made_slice()
    picture = draw_study(modalities=TWO, title="patient, slice 7", **made)
    assert picture.size == (4 * (PANEL + GAP) + GAP, picture.size[1])
    flair, t1ce, reference, model = (panel(picture, column) for column in range(4))
    assert not coloured(flair).any()
    assert not coloured(t1ce).any()
    assert coloured(reference).mean() == pytest.approx(coloured(model).mean(), rel=0.2)
    shift = [np.argwhere(coloured(part))[:, 1].mean() for part in (reference, model)]
    assert shift[1] - shift[0] == pytest.approx(3 * PANEL / 64, abs=2)  # the model's answer lies three pixels right
    mistakes, heat = panel(picture, 0, 1), panel(picture, 1, 1)
    assert coloured(mistakes).any()
    assert coloured(heat).any()


def test_the_outer_side_of_a_picture_is_marked_as_the_patients_right() -> None:
    picture = draw_study(modalities=TWO, **made_slice())
    corner = panel(picture, 0)[3:14, 3:12]
    assert corner.max() > 100  # an R
    assert panel(picture, 0)[3:14, -12:-3].max() == 0


@pytest.mark.parametrize(
    ("left_out", "panels"),
    [(("reference",), 5), (("evidence", "uncertainty"), 5), (("reference", "evidence", "uncertainty"), 3)],
)
def test_what_is_missing_leaves_no_gap(left_out: tuple[str, ...], panels: int) -> None:
    made = {key: value for key, value in made_slice().items() if key not in left_out}
    width = draw_study(modalities=TWO, **made).size[0]
    columns = panels if panels <= 4 else (panels + 1) // 2
    assert width == columns * (PANEL + GAP) + GAP


def test_unknown_regions_are_not_drawn_as_reference() -> None:
    made = made_slice()
    whole = draw_study(modalities=TWO, known=np.array([True, False, False]), **made)
    full = draw_study(modalities=TWO, **made)
    enhancing = rgb(COLOURS["ET"]).astype(int)
    near = [(np.abs(panel(p, 2).astype(int) - enhancing).sum(axis=-1) < 20).sum() for p in (whole, full)]
    assert near[0] == 0 < near[1]
    none = draw_study(modalities=TWO, known=np.zeros(3, dtype=bool), **made)
    assert none.size[0] == 3 * (PANEL + GAP) + GAP


@pytest.mark.parametrize(
    "changes",
    [
        {"planes": np.zeros((2, 64, 64), dtype=np.float32)},
        {"planes": np.full((2, 64, 64), np.nan, dtype=np.float32)},
        {"predicted": np.zeros((3, 64, 64), dtype=bool), "reference": np.zeros((3, 64, 64), dtype=bool)},
        {"evidence": np.full((64, 64), np.nan, dtype=np.float32)},
        {"title": "x" * 400 + "\n<b>é 脳</b>"},
    ],
)
def test_odd_input_is_drawn_all_the_same(changes: dict[str, Any]) -> None:
    assert draw_study(modalities=TWO, **(made_slice() | changes)).size[0] > PANEL


def test_slices_that_are_not_square_keep_their_shape() -> None:
    made = {key: value[..., :40] for key, value in made_slice().items()}
    flair = panel(draw_study(modalities=TWO, **made), 0)
    assert flair[20:, : PANEL // 8].max() == 0  # below the mark of the right side
    assert flair[:, PANEL // 2].max() > 0


@pytest.mark.parametrize("suffix", [".webp", ".jpg", ".png"])
def test_pictures_are_written_as_their_suffix_says(suffix: str, tmp_path: Path) -> None:
    picture = draw_study(modalities=TWO, **made_slice())
    path = save_picture(picture, tmp_path / f"a{suffix}")
    again = Image.open(path)
    assert again.size == picture.size
    assert np.abs(np.asarray(again.convert("RGB"), dtype=int) - np.asarray(picture, dtype=int)).mean() < 5
    assert path.stat().st_size < 150_000
    assert list(tmp_path.iterdir()) == [path]


@given(hnp.arrays(bool, (12, 12), elements=st.booleans()))
def test_an_outline_is_the_part_of_a_mask_that_touches_its_outside(mask: NDArray[np.bool_]) -> None:
    wanted = np.zeros_like(mask)
    for row, column in np.argwhere(mask):
        around = [(row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)]
        wanted[row, column] = any(not (0 <= r < 12 and 0 <= c < 12 and mask[r, c]) for r, c in around)
    assert (outline(mask) == wanted).all()


def test_the_colours_of_mistakes() -> None:
    base = np.full((8, 8, 3), 100, dtype=np.uint8)
    reference, predicted = np.zeros((8, 8), dtype=bool), np.zeros((8, 8), dtype=bool)
    reference[:, 2:5], predicted[:, 4:7] = True, True
    drawn = paint_errors(base, reference, predicted).astype(int)
    assert (drawn[4, 5] - (0.35 * 100 + 0.65 * rgb(EXTRA))).round().tolist() == pytest.approx([0, 0, 0], abs=1)
    assert (drawn[4, 3] - (0.35 * 100 + 0.65 * rgb(MISSED))).round().tolist() == pytest.approx([0, 0, 0], abs=1)
    assert drawn[4, 0].tolist() == [100, 100, 100]
    assert drawn[4, 2].tolist() == drawn[4, 4].tolist() == [255, 255, 255]  # the reference's outline


def test_the_innermost_region_lies_on_top() -> None:
    base = np.zeros((16, 16, 3), dtype=np.uint8)
    regions = np.zeros((3, 16, 16), dtype=bool)
    regions[:, 4:12, 4:12] = True
    assert paint_regions(base, regions)[4, 4].tolist() == rgb(COLOURS["ET"]).astype(int).tolist()


def test_heat_stays_in_the_head_and_leaves_out_what_is_near_zero() -> None:
    base = np.full((8, 8, 3), 50, dtype=np.uint8)
    head = np.zeros((8, 8), dtype=bool)
    head[:, :4] = True
    values = np.ones((8, 8))
    values[0] = 0.05
    drawn = paint_heat(base, values, 1.0, HEAT, head)
    assert (drawn[:, 4:] == 50).all()
    assert (drawn[0] == 50).all()
    assert drawn[4, 0].tolist() == pytest.approx((0.4 * 50 + 0.6 * ramp(HEAT)[255]).tolist(), abs=1)


def test_grey_keeps_the_background_black_and_the_head_above_it() -> None:
    plane = np.zeros((10, 10), dtype=np.float32)
    plane[2:8, 2:8] = np.linspace(-3, 3, 36).reshape(6, 6)
    drawn = grey(plane, 10)
    assert (drawn[plane == 0] == 0).all()
    assert drawn[plane != 0].min() >= 12
    assert drawn.max() == 255
    assert (drawn[..., 0] == drawn[..., 1]).all()
