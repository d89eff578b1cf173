"""How good a choice of post-processing is on the validation patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MIN_GAIN = 0.001  # a smaller gain is not seen in any figure that is reported


@dataclass(frozen=True)
class Judged:
    """What a choice gives on the validation patients.

    Attributes:
        dice: ``[3]`` mean over patients, NaN where no reference has the region.
        false_positives: ``[3]`` studies with an empty reference in which something is predicted.
        scores: ``[patients, 3]``; NaN where the region is unknown.
    """

    dice: NDArray[np.float64]
    false_positives: NDArray[np.intp]
    scores: NDArray[np.float64]

    def score(self, regions: Sequence[int]) -> NDArray[np.float64]:
        """``[patients]`` mean score over some regions, of the patients who have one."""
        chosen = self.scores[:, regions]
        told = ~np.isnan(chosen)
        return np.asarray(np.nansum(chosen, axis=1)[told.any(axis=1)] / told.sum(axis=1)[told.any(axis=1)])


def judge_counts(counts: NDArray[np.int64], known: NDArray[np.bool_], groups: NDArray[np.str_]) -> Judged:
    """Dice, false positives and scores from voxel counts.

    A study scores its Dice, or, where the reference is empty, 1 if nothing is predicted and 0 otherwise.

    Args:
        counts: ``[studies, 3, 3]`` per region: voxels in both masks, predicted, reference.
        known: ``[studies, 3]``: which regions the reference tells.
        groups: ``[studies]``: the patient group of each.
    """
    both, predicted, reference = np.moveaxis(counts.astype(np.float64), -1, 0)
    empty = (reference == 0) & known
    dice = np.where(known & ~empty, 2 * both / np.maximum(predicted + reference, 1), np.nan)
    scores = np.where(empty, predicted == 0, dice)
    patients, number = np.unique(groups, return_inverse=True)
    per_patient = _means(dice, number, len(patients))
    return Judged(
        dice=_means(per_patient, np.zeros(len(patients), dtype=np.intp), 1)[0],
        false_positives=(empty & (predicted > 0)).sum(axis=0),
        scores=_means(scores, number, len(patients)),
    )


def _means(values: NDArray[np.float64], number: NDArray[np.intp], n_groups: int) -> NDArray[np.float64]:
    """``[n_groups, 3]`` means of the rows of ``[n, 3]`` by group, leaving out NaN; NaN where all are."""
    told = ~np.isnan(values)
    sums, counts = np.zeros((2, n_groups, values.shape[1]))
    np.add.at(sums, number, np.where(told, values, 0))
    np.add.at(counts, number, told)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def is_better(new: Judged, old: Judged, regions: Sequence[int]) -> bool:
    """Whether no region is worse and the mean gain over patients is real."""
    if (new.dice < old.dice).any() or (new.false_positives > old.false_positives).any():
        return False
    gain = new.score(regions) - old.score(regions)
    if len(gain) < 2:
        return False
    error = gain.std(ddof=1) / np.sqrt(len(gain))
    # A gain of one patient alone equals its standard error: rounding must not let it pass.
    return bool(gain.mean() >= MIN_GAIN and gain.mean() > error * (1 + 1e-9))
