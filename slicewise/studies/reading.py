"""From a record to a study in memory: every layout, one result, every fault named."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from slicewise.studies.orientation import restore_orientation
from slicewise.studies.picture_reading import read_image, read_lgg
from slicewise.studies.study import Study, StudyRecord
from slicewise.studies.volume_files import read_dicom, read_msd, read_volumes

__all__ = ["read_study", "restore_orientation"]

logger = logging.getLogger(__name__)


def read_study(record: StudyRecord, root: Path) -> Study:
    """Read one study and turn it to display orientation.

    Args:
        record: Which files, and how to read them.
        root: The folder that the record's paths are relative to.

    Returns:
        The study; ``warnings`` says what was repaired or left out.

    Raises:
        StudyError: A file is missing, damaged or does not fit the others; names the file and the cure.
    """
    readers: dict[str, Callable[[StudyRecord, Path], Study]] = {
        "brats": read_volumes,
        "nifti": read_volumes,
        "msd": read_msd,
        "dicom": read_dicom,
        "lgg": read_lgg,
        "images": read_image,
    }
    study = readers[record.layout](record, root)
    for warning in study.warnings:
        logger.warning("study %s: %s", record.study_id, warning)
    return study
