"""Lesion-wise figures of one region, by the scheme of BraTS 2023.

After the challenge's published script (Saluja et al., github.com/rachitsaluja/BraTS-2023-Metrics; described in
Moawad et al., arXiv:2306.00838): the reference is dilated, so that fragments close to each other become one lesion;
a lesion is found when a predicted component touches its dilated form, and is scored against all such components
together. A missed lesion and a predicted component that touches none score Dice 0 and HD95 374 mm. Lesions of at most
50 mm³ are left out, found or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from slicewise.evaluation.surface import SurfaceDistances, find_surface, measure_distances
from slicewise.inference.components3d import Labels, Mask, Spacing, bounding_box, label_components

EIGHTEEN = ndimage.generate_binary_structure(3, 2)  # neighbours by faces and edges


@dataclass(frozen=True)
class LesionScheme:
    """The scheme's numbers; the defaults are those of the adult glioma task.

    Attributes:
        dilation: Steps by which the reference grows, each to the 18 neighbours.
        ignored_mm3: Reference lesions of at most this volume are not scored.
        penalty_mm: HD95 of a missed lesion or false positive: about the diagonal of 240 × 240 × 155 mm.
    """

    dilation: int = 3
    ignored_mm3: float = 50.0
    penalty_mm: float = 374.0


GLIOMA = LesionScheme()


@dataclass(frozen=True)
class LesionFigures:
    """The figures of one region of one study.

    Attributes:
        dice: Mean over scored lesions and false positives; None when there is neither (the script's 1).
        hd95_mm: Likewise (the script's 0).
        reference: How many lesions are scored: found or missed.
        ignored: How many are too small to be scored.
        predicted: How many components were predicted.
        true_positive: Scored lesions that were found.
        false_negative: Scored lesions that were missed.
        false_positive: Predicted components that touch no lesion, however small either is.
        f1: 2 TP / (2 TP + FP + FN); None when all three are 0.
    """

    dice: float | None
    hd95_mm: float | None
    reference: int
    ignored: int
    predicted: int
    true_positive: int
    false_negative: int
    false_positive: int
    f1: float | None

    def record(self) -> dict[str, Any]:
        """As a dict for ``metrics.json``."""
        return asdict(self)


def lesion_figures(
    predicted: Mask,
    reference: Mask,
    spacing_mm: Spacing,
    scheme: LesionScheme = GLIOMA,
    whole: SurfaceDistances | None = None,
) -> LesionFigures:
    """Score one region lesion by lesion.

    Args:
        predicted: ``[D, H, W]``.
        reference: ``[D, H, W]``.
        spacing_mm: Voxel size along the axes.
        scheme: The scheme's numbers.
        whole: The distances between the two masks, where they are known already: they serve a single lesion that
            all components touch.
    """
    box = bounding_box(predicted | reference, margin=scheme.dilation)
    if box is None:
        return LesionFigures(None, None, 0, 0, 0, 0, 0, 0, None)
    lesions = _Lesions(predicted[box], reference[box], scheme.dilation)
    volumes = lesions.sizes * float(np.prod(spacing_mm))
    scored = [int(lesion) for lesion in np.flatnonzero(volumes > scheme.ignored_mm3)]
    if not lesions.is_one_pair:
        whole = None
    rows = [
        _Row(
            bool(lesions.matches[lesion].any()),
            lesions.dice(lesion),
            whole.hausdorff() if whole else lesions.hausdorff(lesion, spacing_mm, scheme.penalty_mm),
        )
        for lesion in scored
    ]
    return _average(rows, lesions, scheme.penalty_mm)


class _Row(NamedTuple):
    """One scored lesion."""

    found: bool
    dice: float
    hd95_mm: float


class _Lesions:
    """Reference lesions and predicted components of one region, numbered from 0, and which touch.

    A component of the dilated reference is exactly its lesion, dilated: both to join fragments and to match,
    one dilation of the whole mask is enough.
    """

    def __init__(self, predicted: Mask, reference: Mask, dilation: int) -> None:
        self.components, n_predicted = label_components(predicted)
        self.component_sizes = _count(self.components[predicted], n_predicted)
        # All that concerns a lesion lies near it: the rest of the volume need not be grown and compared.
        near = bounding_box(reference, margin=dilation) or (slice(0, 0),) * 3
        predicted, reference, components = predicted[near], reference[near], self.components[near]
        zones, n_lesions = label_components(ndimage.binary_dilation(reference, EIGHTEEN, iterations=dilation))
        lesions = zones * reference
        self.lesions: Labels = np.zeros(self.components.shape, dtype=np.int32)
        self.lesions[near] = lesions
        self.sizes = _count(lesions[reference], n_lesions)
        shape = (n_lesions, n_predicted)
        self.matches = _pairs(zones[predicted], components[predicted], shape) > 0
        self.shared = _pairs(lesions[predicted], components[predicted], shape)

    @property
    def is_one_pair(self) -> bool:
        """Whether there is a single lesion, and every component touches it."""
        return len(self.matches) == 1 and bool(self.matches.all())

    def dice(self, lesion: int) -> float:
        """Dice of a lesion with all components that touch its dilated form."""
        chosen = self.matches[lesion]
        total = self.sizes[lesion] + self.component_sizes[chosen].sum()
        return float(2 * self.shared[lesion, chosen].sum() / total)

    def hausdorff(self, lesion: int, spacing_mm: Spacing, penalty_mm: float) -> float:
        """HD95 of a lesion with these components; the penalty where there are none."""
        chosen = np.concatenate([[False], self.matches[lesion]])
        predicted = find_surface(chosen[self.components], spacing_mm)
        reference = find_surface(self.lesions == lesion + 1, spacing_mm)
        distances = measure_distances(predicted, reference)
        return distances.hausdorff() if distances else penalty_mm


def _average(rows: Sequence[_Row], lesions: _Lesions, penalty_mm: float) -> LesionFigures:
    """Means over scored lesions and false positives, and the counts."""
    false = int((~lesions.matches.any(axis=0)).sum())
    tp = sum(row.found for row in rows)
    fn, counted = len(rows) - tp, len(rows) + false
    return LesionFigures(
        dice=sum(row.dice for row in rows) / counted if counted else None,
        hd95_mm=(sum(row.hd95_mm for row in rows) + false * penalty_mm) / counted if counted else None,
        reference=len(rows),
        ignored=len(lesions.sizes) - len(rows),
        predicted=len(lesions.component_sizes),
        true_positive=tp,
        false_negative=fn,
        false_positive=false,
        f1=2 * tp / (2 * tp + false + fn) if counted else None,
    )


def _count(labels: Labels, n_labels: int) -> NDArray[np.intp]:
    """``[n_labels]``: how many voxels each label from 1 has."""
    return np.bincount(labels, minlength=n_labels + 1)[1:]


def _pairs(zones: Labels, components: Labels, shape: tuple[int, int]) -> NDArray[np.intp]:
    """``[zones, components]``: how many voxels each pair of labels from 1 has, given both labels of each voxel."""
    n_zones, n_components = shape
    both = zones.astype(np.int64) * (n_components + 1) + components
    counts = np.bincount(both, minlength=(n_zones + 1) * (n_components + 1))
    return counts.reshape(n_zones + 1, n_components + 1)[1:, 1:]
