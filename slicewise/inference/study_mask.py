"""A study's predicted mask as a NIfTI file that lies on the scan."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from slicewise.inference.study_records import StudyPrediction
from slicewise.slices.regions import labels_of
from slicewise.studies.geometry import Grid
from slicewise.studies.masks import write_mask


def write_study_mask(prediction: StudyPrediction, grid: Grid, path: Path) -> None:
    """Write the predicted regions with BraTS's label values: 1 necrosis, 2 oedema, 4 enhancing tumour.

    Labels nest, and predicted regions may not: what reaches beyond the region around it is written all the same.

    Args:
        prediction: With a mask.
        grid: The study's (``Study.grid``).
        path: ``.nii`` or ``.nii.gz``; replaced in one step.

    Raises:
        ValueError: The prediction has no mask, or it does not fit the grid.
    """
    if prediction.mask is None:
        raise ValueError("this prediction has no mask: predict with the task 'segment'")
    write_mask(labels_of(prediction.mask.astype(np.bool_)), grid, path)
