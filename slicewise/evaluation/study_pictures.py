"""The pictures of a study in the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicewise.config import REGIONS
from slicewise.evaluation.overlays import draw_study, save_picture
from slicewise.evaluation.study_volume import StudyOutputs, StudyVolume
from slicewise.slices.crop import SliceGeometry, prepare_labels
from slicewise.slices.store import SliceStore

FOLDER = "pictures"
WT = REGIONS.index("WT")


def draw_slices(
    store: SliceStore,
    outputs: StudyOutputs,
    volume: StudyVolume,
    predicted: NDArray[np.bool_],
    probability: NDArray[np.float32],
    rows: Sequence[int],
    folder: Path,
) -> list[dict[str, Any]]:
    """Draw some slices of a study at the network's size.

    Args:
        store: The slice store.
        outputs: The network's.
        volume: Of the study.
        predicted: ``[3, D, H, W]``, after post-processing.
        probability: ``[n]`` calibrated, of every row.
        rows: Which.
        folder: Where ``<study>/<z>.webp`` go.

    Returns:
        One record per picture: ``file`` (relative to the folder above), ``z``, ``caption``.
    """
    study = store.studies[outputs.key]
    size = store.index.preprocessing.size
    has_mask = bool(volume.known.any())
    records = []
    for row in rows:
        z, geometry = study.slices.z[row], store.geometry(outputs.key, row)
        picture = draw_study(
            np.asarray(store.images(outputs.key)[row], dtype=np.float32),
            store.index.preprocessing.modalities,
            _shrink(predicted[:, z], geometry, size),
            reference=_shrink(volume.reference[:, z], geometry, size) if has_mask else None,
            known=volume.known,
            evidence=None if outputs.cams is None else outputs.cams[row].astype(np.float32),
            uncertainty=None if outputs.uncertainty is None else outputs.uncertainty[row, WT],
            title=f"{study.key}, slice {z}",
        )
        path = folder / FOLDER / study.key / f"{z}.webp"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_picture(picture, path)
        caption = f"Slice {z}: p(tumour) {probability[row]:.2f}"
        records.append({"file": path.relative_to(folder).as_posix(), "z": z, "caption": caption})
    return records


def _shrink(masks: NDArray[np.bool_], geometry: SliceGeometry, size: int) -> NDArray[np.bool_]:
    """Masks ``[3, H, W]`` of a slice at the network's size."""
    return np.stack([prepare_labels(mask.view(np.uint8), geometry, size) for mask in masks]) > 0
