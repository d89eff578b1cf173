"""Maps back in the slice's own pixels: what Pillow's resize gives, bit for bit where both go along the rows first."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from slicewise.slices.crop import SliceGeometry, restore_map

sides = st.integers(1, 130)
places = st.integers(-70, 70)


def by_pillow(plane: np.ndarray, geometry: SliceGeometry) -> np.ndarray:
    """The box resized as a whole, then pixel by pixel into the frame."""
    height, width = geometry.box
    values = np.asarray(Image.fromarray(plane).resize((width, height), Image.Resampling.BILINEAR))
    padded = np.zeros(tuple(side + 2 * 200 for side in geometry.frame), dtype=np.float32)
    top, left = geometry.top + 200, geometry.left + 200
    padded[top : top + height, left : left + width] = values
    return padded[200:-200, 200:-200]


@given(
    size=st.sampled_from([32, 48, 96]),
    frame=st.tuples(sides, sides),
    box=st.tuples(sides, sides),
    at=st.tuples(places, places),
    seed=st.integers(0, 99),
)
def test_it_is_pillow_s(
    size: int, frame: tuple[int, int], box: tuple[int, int], at: tuple[int, int], seed: int
) -> None:
    geometry = SliceGeometry(frame, *at, box)
    plane = np.random.default_rng(seed).standard_normal((size, size)).astype(np.float32)
    found, expected = restore_map(plane, geometry), by_pillow(plane, geometry)
    if min(box) >= size or box[0] == box[1]:
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)


def test_a_box_outside_the_frame_gives_nothing() -> None:
    plane = np.ones((32, 32), dtype=np.float32)
    assert not restore_map(plane, SliceGeometry((20, 20), 50, 50, (40, 40))).any()
