"""Whether the maps that explain "tumour" lie on the tumour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicewise.config import EvaluateConfig
from slicewise.errors import InputError
from slicewise.evaluation.patient_means import mean_over_patients

FIGURES = ("pointing", "energy_inside", "chance", "energy_gain")


def explanation_of_slice(
    explanation: NDArray[np.floating[Any]], mask: NDArray[np.bool_], head: NDArray[np.bool_]
) -> dict[str, float | bool | None]:
    """Overlap of one slice's map with its true mask, in the head.

    Args:
        explanation: ``[H, W]``, not negative.
        mask: ``[H, W]`` the true tumour.
        head: ``[H, W]``.

    Returns:
        ``pointing``: whether the strongest evidence lies in the mask (the pointing game of Zhang et al., IJCV 2018,
        without a margin). ``energy_inside``: the share of the evidence that does (Wang et al., "Score-CAM", CVPR
        workshops 2020). ``chance``: what both are for a map that knows nothing, the mask's share of the head.
        ``energy_gain``: ``energy_inside`` over ``chance``. All None without tumour or head in the slice; but for
        ``chance`` also where the map is empty, which ``empty`` says.

    Raises:
        InputError: Arrays of different shapes, or a map with negative or not finite values.
    """
    if not explanation.shape == mask.shape == head.shape:
        shapes = f"{explanation.shape}, {mask.shape} and {head.shape}"
        raise InputError(f"explanation, mask and head: shapes {shapes}", "give maps of one slice")
    evidence, inside = explanation[head].astype(np.float64), mask[head].astype(np.bool_)
    if not np.isfinite(evidence).all() or (evidence < 0).any():
        raise InputError("explanation: holds negative or not finite values", "give evidence of 0 and more")
    total = float(evidence.sum())
    record: dict[str, float | bool | None] = dict.fromkeys(FIGURES) | {"empty": total == 0}
    if not inside.any():
        return record
    chance = float(inside.mean())
    record["chance"] = chance
    if total == 0:
        return record
    # Of several strongest pixels, most must lie inside.
    pointing = bool(inside[evidence == evidence.max()].mean() > 0.5)
    energy = float(evidence[inside].sum() / total)
    return record | {"pointing": pointing, "energy_inside": energy, "energy_gain": energy / chance}


def explanation_section(
    records: Sequence[dict[str, Any]], groups: Sequence[str], config: EvaluateConfig
) -> dict[str, Any]:
    """Means over patients of the slices with tumour.

    Args:
        records: As ``explanation_of_slice`` gives; slices without tumour count only for ``n_slices``.
        groups: The patient group of each.
        config: The section ``evaluate``.
    """
    told = [(record, group) for record, group in zip(records, groups, strict=True) if record["chance"] is not None]
    patients = [group for _, group in told]
    figures = {
        name: mean_over_patients([record[name] for record, _ in told], patients, config).model_dump()
        for name in FIGURES
    }
    return {
        "n_slices": len(records),
        "n_with_tumour": len(told),
        "n_empty_map": sum(record["empty"] for record, _ in told),
        **figures,
    }
