"""A study of the LGG set (``kaggle_3m``): numbered TIFF slices of three sequences; masks beside them are left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from PIL import Image, UnidentifiedImageError

from serving.gateway.rest.parameters import StudyParameters
from serving.gateway.rest.study_sizes import too_many
from slicewise.errors import InputError
from slicewise.studies.picture_layouts import find_lgg
from slicewise.studies.reading import read_study
from slicewise.studies.study import Study

CURE = "send the slices of one patient with the set's own names (TCGA_…_7.tif), or a stack of PNG files"


def read_tiffs(folder: Path, study_id: str, parameters: StudyParameters, max_voxels: int) -> Study:
    """Read the one study that the files make; volumes need both ``pixel_mm`` and ``slice_mm``.

    Args:
        folder: Where they lie.
        study_id: What to call it.
        parameters: The request's.
        max_voxels: Of one modality.

    Raises:
        TooLargeError: More voxels than allowed.
        InputError: The names are not the set's, or tell of several patients.
        StudyError: A file is damaged.
    """
    files = [PurePosixPath(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    records = find_lgg(files, study_id)
    if len(records) != 1:
        found = f"{len(records)} studies" if records else "no study: TIFF files have to be named as the LGG set's are"
        raise InputError(f"the TIFF files make {found}", CURE)
    _require_size([folder / name for name in records[0].images["slices"]], max_voxels)
    study = read_study(records[0].model_copy(update={"study_id": study_id, "labels": ()}), folder)
    if parameters.pixel_mm is None or parameters.slice_mm is None:
        return study
    return replace(study, spacing_mm=(parameters.slice_mm, *parameters.pixel_mm), spacing_known=True)


def _require_size(paths: Sequence[Path], max_voxels: int) -> None:
    """By the headers, before a pixel is decoded; what cannot be read is the reader's to refuse."""
    voxels = 0
    for path in paths:
        try:
            with Image.open(path, formats=["TIFF"]) as header:
                voxels += header.width * header.height
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError):
            continue
        if voxels > max_voxels:
            raise too_many(path.name, voxels, max_voxels)
