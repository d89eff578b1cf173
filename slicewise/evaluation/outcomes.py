"""Voxels of a study counted by their uncertainty and by what became of them: all that its figures need.

Counting goes once over the voxels and sorts nothing: the 16 bits of a float16 that is not negative, read as an
integer, are in the order of the numbers, so they are the bins themselves. Uncertainty counts as rounded to float16
(one part in 2000), and voxels that are equal then are ties.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicewise.errors import InputError

TN, FN, FP, TP = range(4)
N_BITS = 15
MINUS_ZERO = 0x8000
LN2 = float(np.log(2))
# Numbers that are negative, infinite or none have greater bits.
GREATEST = int(np.float16(LN2).view(np.uint16))

Counts = NDArray[np.float64]


@dataclass(frozen=True)
class Outcomes:
    """Counts of voxels.

    Attributes:
        percent: ``[K]`` rising levels of uncertainty, in percent of the greatest entropy, ln 2.
        counts: ``[4, K]`` voxels of each level: true negative, false negative, false positive, true positive.
    """

    percent: NDArray[np.float64]
    counts: Counts

    @property
    def wrong(self) -> Counts:
        """``[K]`` wrongly labelled voxels."""
        wrong: Counts = self.counts[FN] + self.counts[FP]
        return wrong

    @property
    def right(self) -> Counts:
        """``[K]`` rightly labelled voxels."""
        right: Counts = self.counts[TN] + self.counts[TP]
        return right


def count_outcomes(
    uncertainty: NDArray[np.floating[Any]],
    predicted: NDArray[np.bool_],
    reference: NDArray[np.bool_],
    inside: NDArray[np.intp],
) -> Outcomes:
    """Count one region's voxels in the head.

    Reference outside the head was missed without any doubt: it counts as false negative of uncertainty 0.

    Args:
        uncertainty: ``[D, H, W]`` entropy in nats, 0 to ln 2.
        predicted: ``[D, H, W]``; nothing outside the head.
        reference: ``[D, H, W]``.
        inside: The head's voxels, as flat indices.

    Raises:
        InputError: Uncertainty that is not 0 to ln 2.
    """
    bits = uncertainty.ravel()[inside].astype(np.float16).view(np.uint16)
    bits[bits == MINUS_ZERO] = 0
    if bits.size and bits.max() > GREATEST:
        raise InputError("uncertainty: holds values that are no entropies of two classes", "give nats, 0 to ln 2")
    truth = reference.ravel()[inside]
    outcome = (predicted.ravel()[inside].view(np.uint8) << 1) | truth.view(np.uint8)
    codes = (outcome.astype(np.int32) << N_BITS) | bits
    counts = np.bincount(codes, minlength=4 << N_BITS).reshape(4, -1).astype(np.float64)
    counts[FN, 0] += np.count_nonzero(reference) - np.count_nonzero(truth)
    levels = np.flatnonzero(counts.any(axis=0))
    nats = levels.astype(np.uint16).view(np.float16).astype(np.float64)
    # ln 2 itself rounds up in float16.
    return Outcomes(np.minimum(100 * nats / LN2, 100.0), counts[:, levels])
