"""The fields of an answer for one slice, the same in V1 and in SliceWise's own routes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.codecs.masks import MaskFormat, encode_map, encode_mask
from slicewise import RESEARCH_USE
from slicewise.config import REGIONS
from slicewise.inference.calibration import Decision

# Entropy of a yes-or-no question at its greatest.
MOST_NATS = math.log(2.0)
LABELS = ("no tumour", "tumour")


def class_fields(probability: float, threshold: float, decision: Decision) -> dict[str, Any]:
    """What classification says: the label by the threshold, and the decision, which may abstain."""
    label = probability >= threshold
    return {
        "prediction": LABELS[label],
        "predicted_label": LABELS[label],
        "tumor_label": label,
        "confidence": probability if label else 1.0 - probability,
        "tumor_probability": probability,
        "calibrated_probabilities": {"no_tumor": 1.0 - probability, "tumor": probability},
        "threshold": threshold,
        "decision": decision,
        "abstain": decision == "unsure",
        "research_use": RESEARCH_USE,
    }


def ood_fields(score: float | None, flag: bool | None) -> dict[str, Any]:
    """How unlike the training slices the input is; null where the model has no such score."""
    return {"ood_score": score, "ood_flag": flag}


def mask_fields(
    mask: NDArray[np.uint8], pixel_mm: tuple[float, float] | None, trained: Sequence[str], form: MaskFormat = "png"
) -> dict[str, Any]:
    """What segmentation says; areas in mm² only where the pixel's size is known.

    Args:
        mask: ``[3, H, W]`` of WT, TC, ET.
        pixel_mm: Row and column spacing.
        trained: The regions that the model was taught; the others' masks are empty.
        form: How the masks are written; ``mask_base64``, that of WT, is null for any but PNG.
    """
    pixels = {name: int(np.count_nonzero(plane)) for name, plane in zip(REGIONS, mask, strict=True)}
    area = None if pixel_mm is None else pixel_mm[0] * pixel_mm[1]
    masks = {name: encode_mask(plane, form) for name, plane in zip(REGIONS, mask, strict=True)}
    return {
        "height": mask.shape[1],
        "width": mask.shape[2],
        "mask_base64": masks["WT"] if form == "png" else None,
        "masks": masks,
        "trained_regions": list(trained),
        "tumor_area_pixels": pixels,
        "tumor_area_mm2": {name: None if area is None else count * area for name, count in pixels.items()},
    }


def map_fields(gradcam: NDArray[np.float32] | None, uncertainty: NDArray[np.float32] | None) -> dict[str, Any]:
    """Grad-CAM and uncertainty as PNG; entropy is shown from 0 to its greatest value, ln 2 nats."""
    fields: dict[str, Any] = {}
    if gradcam is not None:
        fields["gradcam_base64"] = encode_map(gradcam, "png")
    if uncertainty is not None:
        fields["uncertainty_base64"] = encode_map(uncertainty, "png", MOST_NATS)
        fields["uncertainty_max_nats"] = float(uncertainty.max())
    return fields
