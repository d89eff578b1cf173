"""A test study in its own voxels: what the network says of its stored slices, put back where they came from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slicewise.config import REGIONS
from slicewise.inference.calibration import Calibration
from slicewise.inference.restore import restore_regions
from slicewise.inference.uncertainty import Uncertainty
from slicewise.slices.crop import restore_map
from slicewise.slices.regions import known_mask, region_maps
from slicewise.slices.store import SliceStore


@dataclass(frozen=True)
class StudyOutputs:
    """What the network says of one study's stored slices, at the network's size.

    Attributes:
        key: The study.
        tumour: ``[n]`` logits.
        regions: ``[n, 3, size, size]`` float32 logits.
        uncertainty: ``[n, 3, size, size]`` float32, predictive entropy in nats; None when not asked for.
        tumour_uncertainty: Of the tumour logits, ``[n]`` each; None when not asked for.
        cams: ``[n, size, size]`` float16, evidence for tumour in 0..1; None when not asked for.
    """

    key: str
    tumour: NDArray[np.float32]
    regions: NDArray[np.float32]
    uncertainty: NDArray[np.float32] | None
    tumour_uncertainty: Uncertainty | None
    cams: NDArray[np.float16] | None


@dataclass(frozen=True)
class StudyVolume:
    """Masks of one study, ``[3, D, H, W]`` in its own voxels; slices that the store leaves out have no prediction.

    Attributes:
        predicted: Where the calibrated probability reaches the bundle's region threshold.
        reference: The mask as it was given; all False where a region is unknown or there is no mask.
        known: ``[3]``: which regions the mask tells.
        head: ``[D, H, W]``: head or brain.
        uncertainty: float16, predictive entropy in nats; None when it was not asked for.
        spacing_mm: Between slices, rows and columns; 1 where the study does not say.
        spacing_known: Whether it does.
    """

    predicted: NDArray[np.bool_]
    reference: NDArray[np.bool_]
    known: NDArray[np.bool_]
    head: NDArray[np.bool_]
    uncertainty: NDArray[np.float16] | None
    spacing_mm: tuple[float, float, float]
    spacing_known: bool


def restore_study(
    store: SliceStore, outputs: StudyOutputs, calibration: Calibration, trained: NDArray[np.bool_]
) -> StudyVolume:
    """Put a study's outputs into its own voxels, as the Predictor does slice by slice.

    Args:
        store: The slice store.
        outputs: What the network says of the stored slices.
        calibration: The bundle's.
        trained: ``[3]``: the regions that some training mask told; the others stay empty.

    Raises:
        StoreError: The study's file is missing or damaged.
    """
    study = store.studies[outputs.key]
    head, labels = store.native(outputs.key)
    predicted = np.zeros((len(REGIONS), *head.shape), dtype=np.bool_)
    uncertainty = None if outputs.uncertainty is None else np.zeros(predicted.shape, dtype=np.float16)
    for row, z in enumerate(study.slices.z):
        geometry = store.geometry(outputs.key, row)
        maps = restore_regions(outputs.regions[row], calibration, geometry, head[z], trained)
        predicted[:, z] = maps >= calibration.region_threshold
        if uncertainty is not None and outputs.uncertainty is not None:
            for index in np.flatnonzero(trained):
                uncertainty[index, z] = restore_map(outputs.uncertainty[row, index], geometry) * head[z]
    known = known_mask(study.known_regions) & study.has_labels
    reference = np.moveaxis(region_maps(labels), -3, 0) & known[:, None, None, None]
    return StudyVolume(predicted, reference, known, head, uncertainty, study.spacing_mm, study.spacing_known)
