"""Our figures beside other libraries' on the same real masks, number by number.

    python benchmarks/evaluation_agreement.py data/brats

Masks as in ``evaluation_speed.py``. DeepMind defines HD95 and ASSD as BraTS and we do; MONAI measures from border
voxels, unweighted; SimpleITK's Hausdorff distance is between the sets of voxels. The result goes to
``benchmarks/results/evaluation_agreement.json``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import surface_distance
import torch
from evaluation_speed import SPACING, Masks, predicted_from, references
from monai.metrics import compute_average_surface_distance, compute_dice, compute_hausdorff_distance

from slicewise.config import REGIONS
from slicewise.evaluation.overlap import region_figures
from slicewise.evaluation.surface import surface_distances

RESULT = Path(__file__).parent / "results" / "evaluation_agreement.json"


def deepmind(predicted: Masks, reference: Masks) -> dict[str, float]:
    found = surface_distance.compute_surface_distances(reference, predicted, SPACING)
    means = surface_distance.compute_average_surface_distance(found)
    areas = found["surfel_areas_gt"].sum(), found["surfel_areas_pred"].sum()
    return {
        "hd95_mm": surface_distance.compute_robust_hausdorff(found, 95),
        "assd_mm": float(np.average(means, weights=areas)),
        "hausdorff_mm": surface_distance.compute_robust_hausdorff(found, 100),
    }


def monai(predicted: Masks, reference: Masks) -> dict[str, float]:
    pair = [torch.from_numpy(mask)[None, None] for mask in (predicted, reference)]
    words: dict[str, Any] = {"include_background": True, "spacing": SPACING}
    return {
        "dice": float(compute_dice(*pair)),
        "hd95_mm": float(compute_hausdorff_distance(*pair, percentile=95, **words)),
        "assd_mm": float(compute_average_surface_distance(*pair, symmetric=True, **words)),
    }


def simpleitk(predicted: Masks, reference: Masks) -> dict[str, float]:
    images = [sitk.GetImageFromArray(mask.astype(np.uint8)) for mask in (predicted, reference)]
    overlap, distance = sitk.LabelOverlapMeasuresImageFilter(), sitk.HausdorffDistanceImageFilter()
    overlap.Execute(*images)
    distance.Execute(*images)
    return {"dice": overlap.GetDiceCoefficient(), "hausdorff_mm": distance.GetHausdorffDistance()}


def ours(predicted: Masks, reference: Masks) -> dict[str, float]:
    figures = region_figures(predicted, reference, SPACING)
    distances = surface_distances(predicted, reference, SPACING)
    wanted = {name: figures[name] for name in ("dice", "hd95_mm", "assd_mm")}
    return wanted | {"hausdorff_mm": distances.hausdorff(100) if distances else None}


def main() -> None:
    ways = {"ours": ours, "deepmind": deepmind, "monai": monai, "simpleitk": simpleitk}
    rows = []
    for seed, reference in enumerate(references(Path(sys.argv[1]))):
        # Without specks every other study: with them the two definitions of a surface differ most.
        predicted = predicted_from(reference, seed) if seed % 2 else np.roll(reference, (1, 3, -2), axis=(1, 2, 3))
        for name, mask, truth in zip(REGIONS, predicted, reference, strict=True):
            if truth.any():
                figures = {way: call(mask, truth) for way, call in ways.items()}
                rows.append({"study": seed, "region": name, "specks": bool(seed % 2), **figures})
    RESULT.write_text(json.dumps(rows, indent=1, default=float) + "\n", encoding="utf-8")
    sys.stdout.write(f"{RESULT}\n")


if __name__ == "__main__":
    main()
