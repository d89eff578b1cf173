"""A study's slices on their way to the network: those with a head, one by one, as the slice store takes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicewise.config import SliceConfig
from slicewise.errors import InputError, StudyError
from slicewise.inference.predictor import SliceInput
from slicewise.inference.study_records import StudySettings
from slicewise.slices.normalise import normalise
from slicewise.slices.planes import cut_study
from slicewise.slices.prepare import known_channels
from slicewise.slices.transform import Look, as_plane, look_at, require_finite
from slicewise.studies.study import Study


@dataclass(frozen=True)
class FoundSlice:
    """One slice that has a head, or that is wrong.

    Attributes:
        index: Its position along the plane that was cut.
        item: What to predict; the error, where it is wrong.
        head: ``[H, W]`` bool; None where it is wrong.
    """

    index: int
    item: SliceInput | InputError
    head: NDArray[np.bool_] | None


class StudySlices:
    """The slices of a study as the model sees them.

    Args:
        study: The study.
        settings: Of the bundle.

    Attributes:
        modalities: Those that the model is shown.
        shape: ``(slices, rows, columns)``.
        spacing_mm: Along these axes.

    Raises:
        InputError: The model knows none of the study's modalities, or the study cannot be cut in its plane.
    """

    def __init__(self, study: Study, settings: StudySettings) -> None:
        self._settings = settings
        try:
            turned = cut_study(study, settings.preprocessing.plane)
            self._volumes, names, _ = known_channels(turned, settings.preprocessing)
        except StudyError as error:
            known = ", ".join(settings.preprocessing.modalities)
            raise InputError(
                error.message, f"the model knows {known}, in {settings.preprocessing.plane} slices"
            ) from (error)
        self.modalities = tuple(names)
        self.shape: tuple[int, int, int] = turned.channels[0].shape
        self.spacing_mm = turned.spacing_mm

    def __len__(self) -> int:
        """How many slices, with and without a head."""
        return self.shape[0]

    def __iter__(self) -> Iterator[FoundSlice]:
        """The slices with a head, in order."""
        for index in range(len(self)):
            planes = [as_plane(volume[index]) for volume in self._volumes]
            try:
                look = self._look(planes)
            except InputError as error:
                yield FoundSlice(index, error, None)
                continue
            if look is not None:
                item = SliceInput(np.stack(planes), self.modalities, self.spacing_mm[1:])
                yield FoundSlice(index, item, look.mask.view(np.bool_))

    def _look(self, planes: Sequence[NDArray[Any]]) -> Look | None:
        """Where the head is; None for an empty slice."""
        require_finite(planes)
        look = look_at(planes, self._settings.preprocessing, self.spacing_mm[1:])
        if look.share < self._settings.min_foreground or _is_constant(planes, look, self._settings.preprocessing):
            return None
        return look


def _is_constant(planes: Sequence[NDArray[Any]], look: Look, config: SliceConfig) -> bool:
    """Whether no channel has anything to show: all background counts as head where nothing stands out."""
    return all(normalise(plane, look.mask, look.head, config) is None for plane in planes)
