"""Which slices and studies are shown."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slicewise.evaluation.pictured import pick_slices, pick_studies

AREAS = st.integers(1, 40).flatmap(
    lambda n: st.tuples(*[st.lists(st.integers(0, 3), min_size=n, max_size=n)] * 2, st.integers(0, 8))
)


@given(AREAS)
def test_slices_are_rising_and_touched(drawn: tuple[list[int], list[int], int]) -> None:
    predicted, reference, count = np.array(drawn[0]), np.array(drawn[1]), drawn[2]
    rows = pick_slices(predicted, reference, count)
    assert rows == sorted(set(rows))
    touched = np.flatnonzero(predicted + reference)
    if not count:
        assert rows == []
    elif not len(touched):
        assert rows == [len(predicted) // 2]
    else:
        assert len(rows) == min(count, len(touched))
        assert set(rows) <= set(touched.tolist())


def test_the_largest_slice_of_either_mask_is_among_them() -> None:
    predicted, reference = np.zeros(30, dtype=int), np.zeros(30, dtype=int)
    predicted[5:12], reference[8:20] = 3, 2
    predicted[6], reference[19] = 9, 9
    rows = pick_slices(predicted, reference, 4)
    assert {6, 19} <= set(rows)
    assert len(rows) == 4


def record(name: str, dice: float | None) -> dict[str, Any]:
    return {"study": name, "WT": {"dice": dice}}


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, []),
        (1, ["c"]),
        (2, ["c", "a"]),
        (3, ["c", "d", "a"]),
        (4, ["c", "d", "a", "b"]),
        (9, ["c", "d", "a", "b"]),
    ],
)
def test_worst_and_best_first_those_without_dice_last(count: int, expected: list[str]) -> None:
    records = [record("a", 0.9), record("b", None), record("c", 0.1), record("d", 0.5)]
    assert pick_studies(records, count) == expected
