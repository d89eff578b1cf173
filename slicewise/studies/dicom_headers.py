"""What a DICOM file says about its place, its series and how it was taken: headers only, no pixels."""

from __future__ import annotations

import hashlib
import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slicewise.errors import SourceError
from slicewise.studies.brats_layout import TCGA, patient_of
from slicewise.studies.dicom_planes import Plane, planes_of
from slicewise.studies.dicom_tags import integer, number, part, text, texts

MAGIC_AT, MAGIC = 128, b"DICM"
PREFIX_BYTES = 4096  # preamble and the file meta group, which names the transfer syntax
# Deflated files inflate to any size while the header is being read; scanners do not write them.
DEFLATED = re.compile(rb"1\.2\.840\.10008\.1\.2\.(1\.99|4\.95)(?![0-9.])")
MAX_FILE_BYTES = 2 << 30
# Placeholders that anonymisers write for every patient alike.
NOBODY = re.compile(r"^(anon\w*|unknown|none|no ?name|patient|test|x+|0+)?$", re.I)
DAMAGE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
TAGS = [
    "ImageType", "SOPInstanceUID", "Modality", "SeriesDescription", "ProtocolName", "PatientID", "ContrastBolusAgent",
    "ScanningSequence", "SequenceVariant", "SequenceName", "RepetitionTime", "EchoTime", "InversionTime",
    "StudyInstanceUID", "SeriesInstanceUID", "SeriesNumber", "ImagePositionPatient", "ImageOrientationPatient",
    "PixelSpacing", "SamplesPerPixel", "NumberOfFrames", "Rows", "Columns", "RescaleIntercept", "RescaleSlope",
    "AcquisitionContrast", "EchoPulseSequence", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
    "TransferSyntaxUID", "SpecificCharacterSet",
]  # fmt: skip
IMAGE_CLASS = "Image Storage"  # in the name of the class that a file's first bytes announce


@dataclass(frozen=True)
class Acquisition:
    """How a series was taken, as far as its tags say; times in ms, None where not told."""

    text: str = ""
    image_type: tuple[str, ...] = ()
    contrast_agent: str = ""
    sequence: tuple[str, ...] = ()
    variant: tuple[str, ...] = ()
    repetition_ms: float | None = None
    echo_ms: float | None = None
    inversion_ms: float | None = None


@dataclass(frozen=True)
class Header:
    """One DICOM image file without its pixels; ``patient`` is a pseudonym, never the PatientID itself."""

    name: str
    patient: str
    study_uid: str
    series_uid: str
    instance_uid: str
    modality: str
    series_number: int
    label: str
    acquisition: Acquisition
    planes: tuple[Plane, ...]


def read_header(path: Path, name: str) -> Header | None:
    """Read one file's header; None if it is not DICOM or holds no image (a DICOMDIR, a report).

    Args:
        path: The file.
        name: What it is called in the result and in errors.

    Raises:
        SourceError: It is DICOM, but damaged, too large or without its place in space; names it.
    """
    if not is_dicom(path):
        return None
    import pydicom

    try:
        dataset = pydicom.dcmread(path, stop_before_pixels=True, force=False, specific_tags=list(TAGS))
        if "Rows" in dataset:
            return parse_header(dataset, name)
        if IMAGE_CLASS in str(getattr(dataset.file_meta.get("MediaStorageSOPClassUID", ""), "name", "")):
            raise ValueError("it announces an image and ends before it: truncated")
        return None
    except damage() as error:
        raise SourceError(
            f"{name} is a DICOM file that cannot be used: {reason(error)}", "export it again"
        ) from error


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM files do.

    Raises:
        SourceError: It does, but is deflated or larger than ``MAX_FILE_BYTES``.
    """
    try:
        if not path.is_file():
            return False
        with path.open("rb") as handle:
            start = handle.read(PREFIX_BYTES)
        size = path.stat().st_size
    except OSError as error:
        raise SourceError(f"{path} cannot be read ({error.strerror})", "check the file's permissions") from error
    if start[MAGIC_AT : MAGIC_AT + len(MAGIC)] != MAGIC:
        return False
    if DEFLATED.search(start):
        raise SourceError(f"{path} is deflated DICOM", "export it with the transfer syntax Explicit VR Little Endian")
    if size > MAX_FILE_BYTES:
        raise SourceError(f"{path} is larger than {MAX_FILE_BYTES >> 30} GB", "export one series per file")
    return True


def parse_header(dataset: Any, name: str) -> Header:
    """What the project needs of a data set's tags.

    Raises:
        ValueError: A tag that must be there is missing or senseless; names it. Hostile tags may raise any
            of ``damage``.
    """
    study, series = text(dataset, "StudyInstanceUID"), text(dataset, "SeriesInstanceUID")
    if not study or not series:
        raise ValueError("StudyInstanceUID or SeriesInstanceUID is missing")
    description = text(dataset, "SeriesDescription") or text(dataset, "ProtocolName") or "without description"
    count = number(dataset, "SeriesNumber")
    modality = text(dataset, "Modality")
    return Header(
        name=name,
        patient=pseudonym(text(dataset, "PatientID"), study),
        study_uid=study,
        series_uid=series,
        instance_uid=text(dataset, "SOPInstanceUID") or name,
        modality=modality,
        series_number=int(count) if count is not None else 0,
        label=f"series {int(count) if count is not None else '?'} ({description[:60]})",
        acquisition=_acquisition(dataset),
        planes=planes_of(dataset, name) if modality == "MR" and integer(dataset, "SamplesPerPixel", 1) == 1 else (),
    )


def pseudonym(patient_id: str, study_uid: str) -> str:
    """A patient's name in the manifest: ten hexadecimal digits of the PatientID's SHA-256.

    A TCGA barcode is public and stays readable, so that it meets the same person in other sets. Where the
    PatientID is empty or a placeholder, each examination counts as its own patient.
    """
    if TCGA.match(patient_id):
        return patient_of(patient_id)
    return f"dicom-{digest(study_uid if NOBODY.match(patient_id) else patient_id, 10)}"


def digest(text: str, digits: int) -> str:
    """The first hexadecimal digits of a text's SHA-256."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:digits]


def _acquisition(dataset: Any) -> Acquisition:
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [None])[0]
    first = (dataset.get("PerFrameFunctionalGroupsSequence") or [None])[0]

    def enhanced(sequence: str, keyword: str) -> float | None:
        return number(part(first, shared, sequence, required=False), keyword)

    def either(keyword: str, sequence: str, enhanced_keyword: str) -> float | None:
        value = number(dataset, keyword)
        return enhanced(sequence, enhanced_keyword) if value is None else value

    words = (text(dataset, key) for key in ("SeriesDescription", "ProtocolName", "SequenceName"))
    return Acquisition(
        text=" ".join(dict.fromkeys(words)),
        image_type=texts(dataset, "ImageType"),
        contrast_agent=text(dataset, "ContrastBolusAgent"),
        sequence=texts(dataset, "ScanningSequence"),
        variant=texts(dataset, "SequenceVariant"),
        repetition_ms=either("RepetitionTime", "MRTimingAndRelatedParameters", "RepetitionTime"),
        echo_ms=either("EchoTime", "MREcho", "EffectiveEchoTime"),
        inversion_ms=either("InversionTime", "MRModifier", "InversionTimes"),
    )


def damage() -> tuple[type[Exception], ...]:
    """What a damaged or hostile DICOM file can raise while it is read; pydicom's own errors have no common base."""
    from pydicom import errors

    return (*DAMAGE, errors.BytesLengthException, errors.InvalidDicomError)


def reason(error: BaseException) -> str:
    """An error's text on one line, or its kind where it has none."""
    return " ".join(str(error).split())[:200] or type(error).__name__
