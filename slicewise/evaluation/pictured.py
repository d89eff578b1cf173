"""Which slices of a study are shown, and which studies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def pick_slices(predicted: NDArray[np.intp], reference: NDArray[np.intp], count: int) -> list[int]:
    """Rows of a study to show: through the tumour from end to end, with the largest slice of either mask.

    Args:
        predicted: ``[n]`` predicted pixels of each row.
        reference: ``[n]`` reference pixels; 0 where there is no mask.
        count: At most so many; 0 shows none.

    Returns:
        Rising rows: the middle one where neither mask has a pixel.
    """
    if not count or not len(predicted):
        return []
    touched = np.flatnonzero(predicted + reference)
    if not len(touched):
        return [len(predicted) // 2]
    largest = [int(mask.argmax()) for mask in (reference, predicted) if mask.any()]
    # The very ends show a few pixels; the quantiles in between show the tumour's course.
    spread = touched[np.linspace(0, len(touched) - 1, count + 2).round().astype(int)[1:-1]]
    rows = list(dict.fromkeys([*largest, *spread.tolist(), *touched.tolist()]))
    return sorted(rows[: min(count, len(touched))])


def pick_studies(records: Sequence[dict[str, Any]], count: int) -> list[str]:
    """Studies to show: the worst and the best by WT Dice, and others evenly between; those without a Dice last.

    Args:
        records: Of the test studies.
        count: At most so many.
    """
    scored = sorted(
        (record for record in records if record["WT"]["dice"] is not None),
        key=lambda record: (record["WT"]["dice"], record["study"]),
    )
    others = [record["study"] for record in records if record["WT"]["dice"] is None]
    names = [record["study"] for record in scored]
    if len(names) >= count:
        return [names[at] for at in np.linspace(0, len(names) - 1, count).round().astype(int)] if count else []
    return names + others[: count - len(names)]
