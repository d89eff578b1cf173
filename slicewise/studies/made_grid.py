"""Where a study's voxels lie, also for a stack of pictures, which has no place in space."""

from __future__ import annotations

import numpy as np

from slicewise.studies.geometry import Grid
from slicewise.studies.study import Study


def grid_of(study: Study) -> Grid:
    """The study's own grid; a stack of pictures gets its spacing, and codes that say it has no place."""
    if study.grid is not None:
        return study.grid
    between, row, column = study.spacing_mm
    depth, height, width = study.channels[0].shape
    # Display orientation: columns run to the patient's left, rows to the back, slices upwards.
    affine = np.diag([-column, -row, between, 1.0])
    return Grid(affine, (width, height, depth), (0, 0))
