"""A phantom as the files that callers upload."""

from __future__ import annotations

import io
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from slicewise.config.download import PhantomConfig
from slicewise.studies.phantom import PhantomStudy, make_phantom

# The DICOM writer lies with the tests of the DICOM reader.
sys.path.append(str(Path(__file__).parents[1] / "studies"))
from dicom_writing import write_series

SHAPE, SPACING = (40, 48, 20), (2.0, 2.5, 5.0)
DESCRIPTIONS = {"flair": "AX T2 FLAIR", "t1": "AX T1 PRE", "t1ce": "AX T1 POST GD", "t2": "AX T2"}


@dataclass(frozen=True)
class UploadedStudy:
    """Files of one phantom.

    Attributes:
        phantom: Its voxels.
        folder: Holds ``<study>_<modality>.nii.gz`` and DICOM series in ``dicom/<modality>/``.
    """

    phantom: PhantomStudy
    folder: Path

    @property
    def nifti(self) -> dict[str, Path]:
        """By modality."""
        return {name: self.folder / f"{self.phantom.study_id}_{name}.nii.gz" for name in self.phantom.images}

    @property
    def dicom(self) -> list[Path]:
        """The files of two series."""
        return sorted(self.folder.glob("dicom/*/*"))


def make_upload(folder: Path) -> UploadedStudy:
    """Write a phantom with a tumour as NIfTI, and two of its modalities as DICOM."""
    phantom = next(
        study
        for index in range(9)
        if (study := make_phantom(index, PhantomConfig(shape=SHAPE, spacing_mm=SPACING), 3)).tumour
    )
    upload = UploadedStudy(phantom, folder)
    for name, path in upload.nifti.items():
        nib.save(nib.Nifti1Image(phantom.images[name], phantom.affine), path)
    uid = "1.2.826.0.1.3680043.8.498.1"
    for name in ("flair", "t1ce"):
        tags = {"SeriesDescription": DESCRIPTIONS[name], "StudyInstanceUID": uid, "FrameOfReferenceUID": f"{uid}.2"}
        write_series(folder / "dicom" / name, phantom.images[name], spacing=SPACING, shuffle=True, **tags)
    return upload


def zipped(files: Mapping[str, bytes]) -> bytes:
    """A zip archive of files by name."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def labels_of_nifti(content: bytes, folder: Path) -> nib.Nifti1Image:
    """A ``.nii.gz`` from an answer."""
    path = folder / "answer.nii.gz"
    path.write_bytes(content)
    return nib.load(path)


def regions(labels: np.ndarray) -> dict[str, int]:
    """Voxels of WT, TC and ET in BraTS labels."""
    return {
        "WT": int((labels > 0).sum()),
        "TC": int(np.isin(labels, (1, 4)).sum()),
        "ET": int((labels == 4).sum()),
    }
