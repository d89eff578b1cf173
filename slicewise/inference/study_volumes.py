"""The volumes of a study's prediction, filled slice by slice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicewise.config import REGIONS
from slicewise.errors import InputError
from slicewise.inference.components3d import Spacing
from slicewise.inference.predictor import Prediction
from slicewise.inference.study_records import StudySettings
from slicewise.inference.study_slices import FoundSlice
from slicewise.slices.planes import cut
from slicewise.studies.study import Study


class StudyVolumes:
    """Volumes in the study's own voxels; 0 where nothing was predicted.

    Args:
        study: For its shape.
        settings: Of the bundle.
        tasks: What is asked for, as in ``PredictOptions``.
        keep_probability: Keep the regions' probability.

    Attributes:
        mask: ``[3, Z, H, W]`` bool; None without ``segment``.
        head: ``[Z, H, W]`` bool.
        probability: ``[3, Z, H, W]`` float32, or None.
        uncertainty: ``[Z, H, W]`` float32, or None.
        gradcam: ``[Z, H, W]`` float32, or None.
    """

    def __init__(self, study: Study, settings: StudySettings, tasks: Sequence[str], keep_probability: bool) -> None:
        self._settings = settings
        shape = study.channels[0].shape
        segment = "segment" in tasks
        regions = (len(REGIONS), *shape)
        self.head = np.zeros(shape, dtype=np.bool_)
        self.mask = np.zeros(regions, dtype=np.bool_) if segment else None
        self.probability = np.zeros(regions, dtype=np.float32) if segment and keep_probability else None
        self.uncertainty = np.zeros(shape, dtype=np.float32) if "uncertainty" in tasks else None
        self.gradcam = np.zeros(shape, dtype=np.float32) if "explain" in tasks else None

    def add(self, chunk: Sequence[FoundSlice], outcomes: Sequence[Prediction | InputError]) -> None:
        """Put the maps of some slices where they belong."""
        for found, outcome in zip(chunk, outcomes, strict=True):
            if isinstance(outcome, Prediction):
                self._put(self.head, found.index, found.head)
                self._put(self.uncertainty, found.index, outcome.uncertainty)
                self._put(self.gradcam, found.index, outcome.gradcam)
                self._put_regions(self.probability, found.index, outcome.region_probability)
                self._put_regions(self.mask, found.index, self._called(outcome))

    def postprocess(self, spacing_mm: Spacing) -> None:
        """Process the stack of masks as a whole."""
        if self.mask is not None:
            self.mask = self._settings.postprocess.apply(self.mask, spacing_mm)

    def areas(self, spacing_mm: Spacing) -> dict[str, list[float]]:
        """Region → area in mm² in each slice of the model's plane; none without a mask.

        Args:
            spacing_mm: Along the slices, rows and columns of that plane.
        """
        if self.mask is None:
            return {}
        pixel_mm2 = spacing_mm[1] * spacing_mm[2]
        counts = [np.count_nonzero(self._slices(region), axis=(1, 2)) for region in self.mask]
        return {name: (count * pixel_mm2).tolist() for name, count in zip(REGIONS, counts, strict=True)}

    def _called(self, answer: Prediction) -> NDArray[Any] | None:
        """The slice's masks before anything was done to them."""
        if self.mask is None:
            return None
        if answer.region_probability is not None:
            return answer.region_probability >= self._settings.calibration.region_threshold
        if self._settings.needs_probability or answer.mask is None:
            raise ValueError("predict gave no region_probability, without which masks cannot be put together")
        return answer.mask

    def _slices(self, volume: NDArray[Any]) -> NDArray[Any]:
        return cut(volume, self._settings.preprocessing.plane)

    def _put(self, volume: NDArray[Any] | None, index: int, plane: NDArray[Any] | None) -> None:
        if volume is not None and plane is not None:
            self._slices(volume)[index] = plane

    def _put_regions(self, volume: NDArray[Any] | None, index: int, planes: NDArray[Any] | None) -> None:
        if volume is not None and planes is not None:
            for region, plane in zip(volume, planes, strict=True):
                self._put(region, index, plane)
