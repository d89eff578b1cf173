"""All figures of one region of one study, on masks in the study's own voxels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicewise.config import REGIONS
from slicewise.evaluation.lesions import lesion_figures
from slicewise.evaluation.surface import surface_distances
from slicewise.inference.components3d import MM3_PER_ML, Mask, Spacing, check_spacing

# The figures that need the voxels' size.
IN_MM = (
    "hd95_mm",
    "assd_mm",
    "predicted_ml",
    "reference_ml",
    "volume_error_ml",
    "volume_abs_error_ml",
    "lesion_dice",
    "lesion_hd95_mm",
    "lesions",
)


@dataclass(frozen=True)
class Overlap:
    """Voxel counts of a predicted and a reference mask.

    Attributes:
        both: Voxels in both masks.
        predicted: Voxels of the prediction.
        reference: Voxels of the reference.
        negatives: Voxels of the head that are not in the reference.
        false_positives: Those of them that are predicted.
    """

    both: int
    predicted: int
    reference: int
    negatives: int
    false_positives: int

    def figures(self) -> dict[str, float | None]:
        """Dice, IoU, sensitivity (undefined with an empty reference) and specificity (without negatives)."""
        empty = self.reference == 0
        union = self.predicted + self.reference - self.both
        return {
            "dice": None if empty else 2 * self.both / (self.predicted + self.reference),
            "iou": None if empty else self.both / union,
            "sensitivity": None if empty else self.both / self.reference,
            "specificity": 1 - self.false_positives / self.negatives if self.negatives else None,
        }


def count_overlap(predicted: Mask, reference: Mask, head: Mask | None = None) -> Overlap:
    """Count the voxels of two masks ``[...]``.

    Args:
        predicted: The prediction.
        reference: The reference, of the same shape.
        head: Head or brain; None takes the entire frame, most of which is air and easily right.

    Raises:
        ValueError: The shapes differ.
    """
    if predicted.shape != reference.shape or (head is not None and head.shape != reference.shape):
        shapes = [mask.shape for mask in (predicted, reference, head) if mask is not None]
        raise ValueError(f"masks of different shapes: {shapes}")
    both = int(np.count_nonzero(predicted & reference))
    n_predicted, n_reference = int(np.count_nonzero(predicted)), int(np.count_nonzero(reference))
    if head is None:
        return Overlap(both, n_predicted, n_reference, reference.size - n_reference, n_predicted - both)
    negative = head & ~reference
    false_positives = int(np.count_nonzero(negative & predicted))
    return Overlap(both, n_predicted, n_reference, int(np.count_nonzero(negative)), false_positives)


def region_figures(
    predicted: Mask, reference: Mask | None, spacing_mm: Spacing | None, head: Mask | None = None
) -> dict[str, Any]:
    """All figures of one region; None where a figure is undefined (``docs/evaluation.md`` has every case).

    Args:
        predicted: ``[D, H, W]``.
        reference: ``[D, H, W]``; None where the region is unknown, which is not the same as empty.
        spacing_mm: Voxel size along the axes; None where it is unknown: no mm and ml then, nor lesions.
        head: ``[D, H, W]``, head or brain: specificity is over its voxels. None takes the entire frame.

    Returns:
        ``known``, ``empty_reference``, ``false_positive`` (something is predicted where the reference is empty),
        ``dice``, ``iou``, ``sensitivity``, ``specificity``, ``hd95_mm``, ``assd_mm``, ``predicted_ml``,
        ``reference_ml``, ``volume_error_ml`` (predicted - reference) and its absolute value,
        ``lesion_dice``, ``lesion_hd95_mm`` and ``lesions``, a dict of counts and ``f1``.

    Raises:
        ValueError: The masks' shapes differ, or the spacing is not positive.
    """
    known = reference is not None
    truth = np.zeros_like(predicted) if reference is None else reference
    overlap = count_overlap(predicted, truth, head)
    in_mm = _in_mm(predicted, truth, overlap, check_spacing(spacing_mm)) if spacing_mm else dict.fromkeys(IN_MM)
    figures: dict[str, Any] = {
        "known": known,
        "empty_reference": known and overlap.reference == 0,
        "false_positive": known and overlap.reference == 0 and overlap.predicted > 0,
    }
    measured = {**overlap.figures(), **in_mm}
    return figures | {name: value if known or name == "predicted_ml" else None for name, value in measured.items()}


def _in_mm(predicted: Mask, reference: Mask, overlap: Overlap, spacing_mm: Spacing) -> dict[str, Any]:
    """The figures ``IN_MM``, which need the voxels' size."""
    distances = surface_distances(predicted, reference, spacing_mm)
    lesions = lesion_figures(predicted, reference, spacing_mm, whole=distances).record()
    voxel_ml = float(np.prod(spacing_mm)) / MM3_PER_ML
    error = (overlap.predicted - overlap.reference) * voxel_ml
    values = (
        distances.hausdorff() if distances else None,
        distances.average() if distances else None,
        overlap.predicted * voxel_ml,
        overlap.reference * voxel_ml,
        error,
        abs(error),
        lesions.pop("dice"),
        lesions.pop("hd95_mm"),
        lesions,
    )
    return dict(zip(IN_MM, values, strict=True))


def study_figures(
    predicted: Mask,
    reference: Mask,
    known: NDArray[np.bool_],
    spacing_mm: Spacing | None,
    head: Mask | None = None,
) -> dict[str, dict[str, Any]]:
    """``region_figures`` of WT, TC and ET.

    Args:
        predicted: ``[3, D, H, W]``.
        reference: ``[3, D, H, W]``.
        known: ``[3]``: which regions the reference tells.
        spacing_mm: Voxel size along the axes; None where it is unknown.
        head: ``[D, H, W]``.
    """
    return {
        name: region_figures(predicted[at], reference[at] if known[at] else None, spacing_mm, head)
        for at, name in enumerate(REGIONS)
    }
