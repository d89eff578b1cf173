"""Choose the post-processing on validation patients."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from slicewise.config import REGIONS
from slicewise.evaluation.overlap import count_overlap
from slicewise.evaluation.postprocess_score import Judged, is_better, judge_counts
from slicewise.inference.components3d import Mask, Spacing, bounding_box, label_components
from slicewise.inference.postprocess import PostProcess, large_enough, least_voxels

MIN_VOLUMES_MM3 = (50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0)
MIN_SHARES = (0.05, 0.1, 0.25, 0.5, 1.0)
Limit = Literal["min_volume_mm3", "min_share"]
# The share first: it never drops all of a small tumour, as a volume can.
LIMITS: dict[Limit, tuple[float, ...]] = {"min_share": MIN_SHARES, "min_volume_mm3": MIN_VOLUMES_MM3}


class ValidationStudy(NamedTuple):
    """One validation study.

    Attributes:
        mask: ``[3, D, H, W]``, predicted, not processed.
        reference: ``[3, D, H, W]``.
        known: ``[3]``: which regions the reference tells.
        spacing_mm: Voxel size along the axes.
        group: The patient group.
    """

    mask: NDArray[np.bool_]
    reference: NDArray[np.bool_]
    known: NDArray[np.bool_]
    spacing_mm: Spacing
    group: str


@dataclass(frozen=True)
class PackedStudy:
    """A study cut to its masks' rows and columns, one bit a voxel: many studies fit into memory.

    Attributes:
        bits: Predicted and reference mask, packed.
        shape: ``(2, 3, D, h, w)`` of what is packed.
        known: As in ``ValidationStudy``.
        spacing_mm: Likewise.
        group: Likewise.
    """

    bits: NDArray[np.uint8]
    shape: tuple[int, ...]
    known: NDArray[np.bool_]
    spacing_mm: Spacing
    group: str

    @classmethod
    def of(cls, study: ValidationStudy) -> PackedStudy:
        """Pack a study."""
        anywhere = np.asarray((study.mask | study.reference).any(axis=0))
        box = bounding_box(anywhere) or (slice(0, 1),) * 3
        # All slices stay: a study of several must not turn into one of a single slice.
        both = np.stack([study.mask, study.reference])[:, :, :, box[1], box[2]]
        return cls(np.packbits(both), both.shape, np.asarray(study.known), study.spacing_mm, study.group)

    def masks(self) -> NDArray[np.bool_]:
        """``[2, 3, D, h, w]``: predicted and reference."""
        size = int(np.prod(self.shape))
        return np.unpackbits(self.bits, count=size).reshape(self.shape).view(np.bool_)


def choose_postprocess(
    studies: Iterable[ValidationStudy | PackedStudy],
) -> tuple[PostProcess, list[dict[str, Any]]]:
    """Choose holes, then each region's least component by share of the largest and by volume, then nesting.

    Each only where it clearly helps.

    A study scores its Dice, or, where the reference is empty, 1 if nothing is predicted and 0 otherwise; this
    serves the choice only, no report counts it. A step is taken if no region's mean Dice falls and none gets more
    false positives, and the mean gain over patients is at least 0.001 and above its own standard error, so that
    one patient alone decides nothing. Otherwise nothing is done.

    Args:
        studies: The validation studies, packed already or not; they are gone through once.

    Returns:
        The choice, and a row per candidate: ``step``, ``region``, ``value``, ``dice``, ``false_positives``,
        ``score``, ``chosen``.
    """
    packed = [study if isinstance(study, PackedStudy) else PackedStudy.of(study) for study in studies]
    search = _Search(packed)
    search.try_switch("fill_holes")
    for region in range(len(REGIONS)):
        for limit in LIMITS:
            search.try_limits(limit, region)
    search.try_switch("hierarchy")
    return search.chosen, search.table


class _Search:
    """The steps of the choice; ``chosen`` is the best so far and ``judged`` what it gives."""

    def __init__(self, kept: list[PackedStudy]) -> None:
        self.kept = kept
        self.known = np.array([study.known for study in kept], dtype=np.bool_).reshape(-1, len(REGIONS))
        self.groups = np.array([study.group for study in kept])
        self.chosen = PostProcess()
        self.table: list[dict[str, Any]] = []
        self.counts = self._count(self.chosen)
        self.judged = self.judge(self.counts)
        for region in range(len(REGIONS)):
            self._note("none", region, None, self.judged)

    def try_switch(self, name: str) -> None:
        """Try a step that concerns all regions together."""
        choice = PostProcess.model_validate(self.chosen.model_dump() | {name: True})
        counts = self._count(choice)
        judged, every = self.judge(counts), range(len(REGIONS))
        taken = is_better(judged, self.judged, every)
        for region in every:
            self._note(name, region, True, judged, taken)
        if taken:
            self.chosen, self.counts, self.judged = choice, counts, judged

    def try_limits(self, limit: Limit, region: int) -> None:
        """Try to drop small components of one region: all limits from the sizes of its components, found once."""
        per_study = [
            _by_limit(limit, predicted[region], reference[region], voxel) for predicted, reference, voxel in self
        ]
        candidates = []
        for number, value in enumerate(LIMITS[limit]):
            counts = self.counts.copy()
            for at, found in enumerate(per_study):
                counts[at, region, :2] = found[number]
            candidates.append((value, counts, self.judge(counts)))
        better = [each for each in candidates if is_better(each[2], self.judged, [region])]
        best = max(better, key=lambda each: round(float(each[2].score([region]).mean()), 9), default=None)
        for value, _, judged in candidates:
            self._note(limit, region, value, judged, best is not None and best[0] == value)
        if best:
            limits = getattr(self.chosen, limit) | {REGIONS[region]: best[0]}
            self.chosen = self.chosen.model_copy(update={limit: limits})
            self.counts, self.judged = best[1], best[2]

    def __iter__(self) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.bool_], float | None]]:
        """Predicted (as chosen so far) and reference masks, and the voxel's mm³ (None: a single slice)."""
        for study in self.kept:
            predicted, reference = study.masks()
            voxel = float(np.prod(study.spacing_mm)) if predicted.shape[1] > 1 else None
            yield self.chosen.apply(predicted, study.spacing_mm), reference, voxel

    def _count(self, choice: PostProcess) -> NDArray[np.int64]:
        """``[studies, 3, 3]`` voxels per region: in both masks, predicted, reference."""
        counts = np.zeros((len(self.kept), len(REGIONS), 3), dtype=np.int64)
        for at, study in enumerate(self.kept):
            predicted, reference = study.masks()
            for region, (mask, truth) in enumerate(
                zip(choice.apply(predicted, study.spacing_mm), reference, strict=True)
            ):
                found = count_overlap(mask, truth)
                counts[at, region] = found.both, found.predicted, found.reference
        return counts

    def judge(self, counts: NDArray[np.int64]) -> Judged:
        return judge_counts(counts, self.known, self.groups)

    def _note(self, step: str, region: int, value: Any, judged: Judged, chosen: bool = False) -> None:
        score, dice = judged.score([region]), judged.dice[region]
        row = {
            "step": step,
            "region": REGIONS[region],
            "value": value,
            "dice": None if np.isnan(dice) else float(dice),
            "false_positives": int(judged.false_positives[region]),
            "score": float(score.mean()) if len(score) else None,
            "chosen": chosen,
        }
        self.table.append(row)


def _by_limit(limit: Limit, predicted: Mask, reference: Mask, voxel_mm3: float | None) -> list[tuple[int, int]]:
    """Voxels in both masks and predicted voxels for each value of a limit; all of them in a single slice."""
    labels, n_labels = label_components(predicted)
    sizes = np.bincount(labels[predicted], minlength=n_labels + 1)
    shared = np.bincount(labels[predicted & reference], minlength=n_labels + 1)
    counts = []
    for value in LIMITS[limit]:
        volume, share = (value, 0.0) if limit == "min_volume_mm3" else (0.0, value)
        kept = large_enough(sizes, least_voxels(volume, voxel_mm3), share) if voxel_mm3 else sizes > 0
        counts.append((int(shared[kept].sum()), int(sizes[kept].sum())))
    return counts
