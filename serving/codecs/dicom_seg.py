"""A study's masks as a DICOM Segmentation object (PS3.3, A.51) that refers to the images they were made from."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from slicewise import RESEARCH_USE, __version__
from slicewise.config import REGIONS
from slicewise.studies.dicom_geometry import Stack, stack_planes
from slicewise.studies.dicom_planes import Plane, planes_of
from slicewise.studies.geometry import Grid
from slicewise.studies.orientation import restore_orientation

if TYPE_CHECKING:
    import highdicom

NAMES = {"WT": "Whole tumour", "TC": "Tumour core", "ET": "Enhancing tumour"}
COLOURS = {"WT": (43, 183, 164), "TC": (242, 169, 0), "ET": (255, 77, 94)}
MANUFACTURER, SERIES_NUMBER = "SliceWise", 900
SAME_MM = 1e-3
# Attributes that must be there and may be empty (type 2): de-identified files often lack them.
MAY_BE_EMPTY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate"),
    *("StudyTime", "ReferringPhysicianName"),
)


@dataclass(frozen=True)
class SourceSeries:
    """The images of one series without their pixels, and how they stack."""

    datasets: tuple[Any, ...]
    planes: tuple[Plane, ...]
    stack: Stack

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the volume: columns, rows, slices."""
        return self.planes[0].columns, self.planes[0].rows, len(self.planes)


def write_segmentation(
    mask: NDArray[np.uint8],
    series: Mapping[str, Sequence[Path]],
    grid: Grid,
    trained: Sequence[str],
    model: Mapping[str, str],
) -> bytes:
    """One binary segment per trained region; the regions overlap, as WT holds TC and TC holds ET.

    Args:
        mask: ``[3, Z, H, W]`` of WT, TC, ET in display orientation.
        series: Modality → files of its series.
        grid: The study's, which is that of one of the series.
        trained: The regions that the model was taught.
        model: ``name``, ``version`` and ``digest``.

    Returns:
        The file's content.

    Raises:
        ValueError: No series lies on the grid, or its images lack what the standard wants to be told.
    """
    import highdicom

    source = _source(series, grid)
    regions = [name for name in REGIONS if name in trained]
    segmentation = highdicom.seg.Segmentation(
        source_images=list(source.datasets),
        pixel_array=_frames(mask, regions, source),
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_describe(number, name, model) for number, name in enumerate(regions, start=1)],
        series_instance_uid=highdicom.UID(),
        series_number=SERIES_NUMBER,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        **_maker(model),
    )
    buffer = io.BytesIO()
    segmentation.save_as(buffer)
    return buffer.getvalue()


def _maker(model: Mapping[str, str]) -> dict[str, Any]:
    """Who made the object, and that it is no diagnosis; texts of at most 64 characters, as the standard has it."""
    return {
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": model["name"],
        "software_versions": f"{__version__}, model {model['version']}"[:64],
        "device_serial_number": model["digest"][:16] or "0",
        "series_description": f"{MANUFACTURER} segmentation, research use",
        "content_description": RESEARCH_USE[:64],
    }


def _source(series: Mapping[str, Sequence[Path]], grid: Grid) -> SourceSeries:
    """The series whose voxels are the study's."""
    for files in series.values():
        read = _read(files)
        if read.shape == tuple(grid.shape) and np.abs(read.stack.affine - grid.affine).max() < SAME_MM:
            return read
    raise ValueError("no series lies on the study's grid")


def _read(files: Sequence[Path]) -> SourceSeries:
    import pydicom

    datasets = [pydicom.dcmread(path, stop_before_pixels=True) for path in files]
    for dataset in datasets:
        if not dataset.get("FrameOfReferenceUID"):
            raise ValueError("the images do not tell their FrameOfReferenceUID")
        for name in MAY_BE_EMPTY:
            if name not in dataset:
                setattr(dataset, name, "")
    planes = [plane for path, dataset in zip(files, datasets, strict=True) for plane in planes_of(dataset, path.name)]
    return SourceSeries(tuple(datasets), tuple(planes), stack_planes(planes))


def _frames(mask: NDArray[np.uint8], regions: Sequence[str], source: SourceSeries) -> NDArray[np.uint8]:
    """``[frames, rows, columns, segments]`` in the order of the source's frames."""
    columns, rows, depth = source.shape
    frames = np.zeros((depth, rows, columns, len(regions)), dtype=np.uint8)
    for segment, name in enumerate(regions):
        volume = restore_orientation(mask[REGIONS.index(name)], source.stack.affine, source.shape)
        frames[list(source.stack.order), :, :, segment] = volume.transpose(2, 1, 0)
    return frames


def _describe(number: int, name: str, model: Mapping[str, str]) -> highdicom.seg.SegmentDescription:
    import highdicom
    from pydicom.sr.codedict import codes

    kinds = {"WT": codes.SCT.Neoplasm, "TC": codes.SCT.NeoplasmPrimary, "ET": codes.NCIt.EnhancingLesion}
    description = highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=f"{NAMES[name]} ({name})",
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=kinds[name],
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name=f"{MANUFACTURER} {model['name']}"[:64],
            version=model["version"] or "0",
            family=codes.DCM.ArtificialIntelligence,
        ),
        display_color=highdicom.color.CIELabColor.from_rgb(*COLOURS[name]),
    )
    return description
