"""What a study is: the record in a dataset's manifest, and the study read into memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from slicewise.studies.geometry import Grid

Layout = Literal["brats", "lgg", "images", "msd", "dicom", "nifti"]
ALL_REGIONS = ("WT", "TC", "ET")
FileLabel = Annotated[int, Field(ge=0, le=255)]
BratsLabel = Literal[0, 1, 2, 4]


class StudyRecord(BaseModel):
    """One study of a dataset, with its files but without their content.

    Attributes:
        study_id: Unique in the dataset, e.g. ``BraTS2021_01476``.
        patient_id: What the patient is called in this set; None where the set does not say (2D images).
        source: The source's short name (``phantom``, ``brats``, ``lgg``, ``kaggle`` or the folder's name).
        layout: How the files are to be read.
        synthetic: True for phantoms, so that no report takes them for patients.
        images: Files by role, relative to the dataset folder. ``brats``, ``nifti``: one file per modality.
            ``lgg``: the single role ``slices``, files in order of their number. ``images``: the single role
            ``image``. ``msd``: the single role ``volume``, one 4D file. ``dicom``: per modality, the files of
            one series in spatial order.
        labels: Label files in the same order (one per slice for ``lgg``, else one), or empty.
        tumour: The class of a 2D image from its folder (``yes``/``no``); None where a mask decides.
        grade: ``HGG`` or ``LGG`` where the set tells it.
        channel_order: ``msd``: the modality of each volume of the 4D file.
        label_map: The label file's values → BraTS values, where its numbering is another; empty: BraTS's.
        label_regions: The regions that the label file tells apart from the rest.
        notes: What was seen when the study was found and belongs in its quality record.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    study_id: str
    patient_id: str | None
    source: str
    layout: Layout
    synthetic: bool = False
    images: dict[str, tuple[str, ...]]
    labels: tuple[str, ...] = ()
    tumour: bool | None = None
    grade: Literal["HGG", "LGG"] | None = None
    channel_order: tuple[str, ...] = ()
    label_map: dict[FileLabel, BratsLabel] = Field(default_factory=dict)
    label_regions: tuple[str, ...] = ALL_REGIONS
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Study:
    """One study in memory, oriented for display.

    Rows run from anterior to posterior, columns from the patient's right to the left (the radiological view:
    the patient's right is on the left of the picture), slices from inferior to superior.

    Attributes:
        record: Where it came from.
        modalities: Names of the channels that the study really has.
        channels: ``[Z, H, W]`` for each of them, raw intensities, all finite; views where that saves a copy.
        labels: ``[Z, H, W]`` uint8 with BraTS values 0, 1, 2, 4, or None.
        known_regions: The regions that ``labels`` tells; the others are unknown, not empty.
        spacing_mm: ``(between slices, row, column)`` in mm; 1.0 where the file does not say.
        spacing_known: Whether the spacing came from the file.
        warnings: What a reader should know, one line each.
        grid: Where the voxels lie in the files' own order; None for pictures, which have no place.
    """

    record: StudyRecord
    modalities: tuple[str, ...]
    channels: tuple[NDArray[Any], ...]
    labels: NDArray[np.uint8] | None
    known_regions: tuple[str, ...]
    spacing_mm: tuple[float, float, float]
    spacing_known: bool
    warnings: tuple[str, ...] = field(default=())
    grid: Grid | None = None

    @cached_property
    def image(self) -> NDArray[Any]:
        """All channels as one array, ``[C, Z, H, W]``; copied on first use."""
        return np.stack(self.channels)
