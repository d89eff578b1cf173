"""Cutting a volume in axial, coronal or sagittal slices, and putting maps of them back together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicewise.config.preprocess import Plane
from slicewise.errors import StudyError
from slicewise.studies.study import Study

# From ``[Z, H, W]`` (inferior → superior, anterior → posterior, right → left) to ``[slices, rows, columns]``:
# the order of the axes. In the two upright planes the head is at the top, so rows run superior → inferior.
AXES: dict[Plane, tuple[int, int, int]] = {"axial": (0, 1, 2), "coronal": (1, 0, 2), "sagittal": (2, 0, 1)}


def cut(volume: NDArray[Any], plane: Plane) -> NDArray[Any]:
    """Turn a volume ``[Z, H, W]`` in display orientation so that its first axis runs over the plane's slices.

    Returns:
        ``[slices, rows, columns]``, a view.
    """
    turned = volume.transpose(AXES[plane])
    return turned if plane == "axial" else turned[:, ::-1]


def uncut(slices: NDArray[Any], plane: Plane) -> NDArray[Any]:
    """Undo ``cut``: ``[slices, rows, columns]`` to ``[Z, H, W]``, a view."""
    upright = slices if plane == "axial" else slices[:, ::-1]
    back = np.argsort(AXES[plane])
    return upright.transpose(int(back[0]), int(back[1]), int(back[2]))


def cut_study(study: Study, plane: Plane) -> Study:
    """A study whose slices run along ``plane``, its spacing turned with it.

    Raises:
        StudyError: The plane is not axial and the study is a stack of pictures that do not say how far apart
            they lie.
    """
    if plane == "axial" or (len(study.channels[0]) == 1 and not study.spacing_known):
        return study
    if not study.spacing_known:
        raise StudyError(
            study.record.study_id,
            f"cannot be cut in {plane} slices: its pictures do not say how far apart they lie",
            "set preprocess.slice.plane=axial, or leave this source out",
        )
    z, y, x = AXES[plane]
    spacing = study.spacing_mm
    return replace(
        study,
        channels=tuple(cut(channel, plane) for channel in study.channels),
        labels=None if study.labels is None else cut(study.labels, plane),
        spacing_mm=(spacing[z], spacing[y], spacing[x]),
    )
