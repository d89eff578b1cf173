from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pydicom.encaps
import pytest
import SimpleITK
from dicom_writing import AXIAL, SAGITTAL, oblique, write_enhanced, write_series
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom.uid import generate_uid

from slicewise.errors import SourceError, StudyError
from slicewise.studies.dicom_headers import Acquisition, pseudonym
from slicewise.studies.dicom_modality import recognise
from slicewise.studies.dicom_reading import load_series
from slicewise.studies.layouts import discover
from slicewise.studies.reading import read_study

RNG = np.random.default_rng(3)
VOLUME = RNG.integers(0, 4000, (7, 5, 4)).astype(np.uint16)
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
FLAIR = {"SeriesDescription": "AX T2 FLAIR"}


def load(files: list[Path]) -> tuple[NDArray[Any], NDArray[np.float64], list[str]]:
    warnings: list[str] = []
    volume = load_series(files, "s", warnings)
    return volume.data, volume.affine, warnings


def by_itk(folder: Path) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """The same series as SimpleITK reads it: voxels [X, Y, Z] and the affine in RAS+."""
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    affine = np.eye(4)
    direction = np.asarray(image.GetDirection()).reshape(3, 3)
    affine[:3, :3] = direction * np.asarray(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return SimpleITK.GetArrayFromImage(image).transpose(2, 1, 0), LPS_TO_RAS @ affine


@pytest.mark.parametrize("axes", [AXIAL, SAGITTAL, oblique(20), oblique(-47)], ids=["axial", "sagittal", "20", "-47"])
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
def test_geometry_and_voxels_as_by_itk(tmp_path: Path, axes: Any, shuffle: bool, dtype: Any) -> None:
    volume = VOLUME.astype(dtype) - (500 if dtype is np.int16 else 0)
    files = write_series(
        tmp_path, volume, axes=axes, spacing=(0.7, 0.9, 3.3), origin=(-80.5, 31.25, 12.0), shuffle=shuffle
    )
    data, affine, _ = load(files[::-1])
    itk_data, itk_affine = by_itk(tmp_path)
    np.testing.assert_allclose(affine, itk_affine, atol=1e-5)
    np.testing.assert_array_equal(data, itk_data)
    np.testing.assert_array_equal(data, volume)
    assert data.dtype == dtype


def test_rescale_slope_and_intercept_as_by_itk(tmp_path: Path) -> None:
    files = write_series(tmp_path, VOLUME, RescaleSlope=0.5, RescaleIntercept=-7.25)
    data, _, _ = load(files)
    np.testing.assert_allclose(data, by_itk(tmp_path)[0], rtol=1e-6)
    assert data.dtype == np.float32


@pytest.mark.parametrize(("dtype", "stored"), [(np.uint16, 12), (np.int16, 16)])
def test_inverted_grey_is_turned_back(tmp_path: Path, dtype: Any, stored: int) -> None:
    volume = VOLUME.astype(dtype)
    top = (1 << stored) - 1 if dtype is np.uint16 else -1
    flipped = (top - volume.astype(int)).astype(dtype)
    files = write_series(
        tmp_path, flipped, PhotometricInterpretation="MONOCHROME1", BitsStored=stored, HighBit=stored - 1
    )
    data, _, warnings = load(files)
    np.testing.assert_array_equal(data, volume)
    assert "MONOCHROME1" in warnings[0]


@pytest.mark.parametrize("axes", [AXIAL, oblique(31)], ids=["axial", "oblique"])
def test_enhanced_multi_frame_equals_single_frames(tmp_path: Path, axes: Any) -> None:
    path = write_enhanced(tmp_path / "e", VOLUME, axes=axes, spacing=(0.7, 0.9, 3.3), order=[2, 0, 3, 1])
    data, affine, _ = load([path])
    expected = load(write_series(tmp_path / "s", VOLUME, axes=axes, spacing=(0.7, 0.9, 3.3)))
    np.testing.assert_array_equal(data, expected[0])
    np.testing.assert_allclose(affine, expected[1], atol=1e-6)


@pytest.mark.parametrize("axes", [AXIAL, SAGITTAL, oblique(-47)], ids=["axial", "sagittal", "oblique"])
def test_enhanced_multi_frame_as_by_itk(tmp_path: Path, axes: Any) -> None:
    path = write_enhanced(tmp_path / "e", VOLUME, axes=axes, spacing=(0.7, 0.9, 3.3))
    data, affine, _ = load([path])
    image = SimpleITK.ReadImage(str(path))
    itk_affine = np.eye(4)
    itk_affine[:3, :3] = np.asarray(image.GetDirection()).reshape(3, 3) * np.asarray(image.GetSpacing())
    np.testing.assert_allclose(affine, LPS_TO_RAS @ itk_affine, atol=1e-5)
    np.testing.assert_array_equal(data, SimpleITK.GetArrayFromImage(image).transpose(2, 1, 0))


def test_enhanced_series_is_found(tmp_path: Path) -> None:
    write_enhanced(tmp_path / "e", VOLUME, SeriesDescription="T2 FLAIR")
    (record,) = discover(tmp_path, "x")
    assert record.images == {"flair": ("e",)}


def test_enhanced_frames_have_their_own_rescale(tmp_path: Path) -> None:
    path = write_enhanced(tmp_path / "e", VOLUME, slopes=[1, 2, 3, 4])
    data, _, _ = load([path])
    np.testing.assert_allclose(data, VOLUME * np.array([1, 2, 3, 4]))


@pytest.mark.parametrize("method", ["rle", "j2k"])
def test_compressed_pixels(tmp_path: Path, method: str) -> None:
    volume = VOLUME.repeat(8, axis=0).repeat(8, axis=1).astype(np.uint8 if method == "j2k" else np.uint16)
    files = write_series(tmp_path, volume)
    for path in files:
        _compress(path, method)
    np.testing.assert_array_equal(load(files)[0], volume)


def _compress(path: Path, method: str) -> None:
    dataset = pydicom.dcmread(path)
    if method == "rle":
        dataset.compress(pydicom.uid.RLELossless)
    else:
        import io

        from PIL import Image
        from pydicom.encaps import encapsulate

        packed = io.BytesIO()
        Image.fromarray(dataset.pixel_array).save(packed, "JPEG2000", irreversible=False, no_jp2=True)
        dataset.PixelData = encapsulate([packed.getvalue()])
        dataset["PixelData"].is_undefined_length = True
        dataset["PixelData"].VR = "OB"
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.JPEG2000Lossless
    dataset.save_as(path)


def test_missing_decoder_names_the_package(tmp_path: Path) -> None:
    files = write_series(tmp_path, VOLUME)
    dataset = pydicom.dcmread(files[1])
    dataset.PixelData = pydicom.encaps.encapsulate([b"\0" * 64])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.HTJ2KLossless
    dataset.save_as(files[1])
    with pytest.raises(StudyError, match=r"High-Throughput JPEG 2000.*pylibjpeg.*install it"):
        load(files)


def _edit(path: Path, **tags: Any) -> None:
    dataset = pydicom.dcmread(path)
    for key, value in tags.items():
        if value is None:
            delattr(dataset, key)
        else:
            setattr(dataset, key, value)
    dataset.save_as(path)


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"ImagePositionPatient": None}, "IM0001.*ImagePositionPatient is missing"),
        ({"ImagePositionPatient": [0, 0, 0]}, "lie in one place"),
        ({"ImagePositionPatient": [0, 0, 1.4]}, r"IM0000 and .*IM0001 lie 1.40 mm apart"),
        ({"ImagePositionPatient": [9, 0, 1]}, "shift sideways"),
        ({"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}, "different directions"),
        ({"PixelSpacing": [2, 2]}, "differ in PixelSpacing"),
        ({"PixelSpacing": [0, 1]}, "PixelSpacing is"),
        ({"Rows": 4, "PixelData": bytes(56)}, r"is 7×5 and .*IM0001 is 7×4 pixels"),
        ({"Rows": 65535, "Columns": 65535}, "announces 1 frames of 65535×65535"),
        ({"PixelData": bytes(8)}, "IM0001 cannot be used"),
        ({"PixelData": None}, "IM0001 cannot be used"),
        ({"SamplesPerPixel": 3}, "colour picture"),
        ({"RescaleSlope": 0}, "rescale slope 0"),
        ({"NumberOfFrames": 3}, "several frames"),
    ],
)
def test_bad_file_in_a_series_is_named(tmp_path: Path, tags: dict[str, Any], message: str) -> None:
    files = write_series(tmp_path, VOLUME)
    _edit(files[1], **tags)
    with pytest.raises(StudyError, match=message):
        load(files)


@pytest.mark.parametrize("size", [0, 100, 140, 400, 700])
def test_truncated_file_is_named(tmp_path: Path, size: int) -> None:
    files = write_series(tmp_path, VOLUME)
    files[2].write_bytes(files[2].read_bytes()[:size])
    with pytest.raises(StudyError, match="IM0002"):
        load(files)


def test_missing_slice_and_missing_file(tmp_path: Path) -> None:
    files = write_series(tmp_path, VOLUME)
    with pytest.raises(StudyError, match="a slice is missing"):
        load([files[0], *files[2:]])
    with pytest.raises(StudyError, match="one slice only"):
        load(files[:1])
    files[0].unlink()
    with pytest.raises(StudyError, match="IM0000 is missing"):
        load(files)


def test_deflated_is_refused_before_it_inflates(tmp_path: Path) -> None:
    files = write_series(tmp_path, VOLUME)
    dataset = pydicom.dcmread(files[0])
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    dataset.save_as(files[0])
    with pytest.raises(StudyError, match=r"IM0000 is deflated DICOM.*Explicit VR"):
        load(files)


# What is found.


def write_study(folder: Path, descriptions: dict[str, str], **tags: Any) -> None:
    study = generate_uid()
    for number, (name, description) in enumerate(descriptions.items(), start=1):
        series = {"StudyInstanceUID": study, "SeriesDescription": description, "SeriesNumber": number}
        write_series(folder / name, VOLUME, **(series | tags))


def test_a_visit_is_one_study_with_one_series_per_modality(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = {"a": "AX T2 FLAIR", "b/c": "T1 AX PRE", "d": "T1 AX POST GD", "e": "T2 TSE ax", "f": "ep2d_diff_ADC"}
    write_study(tmp_path, names)
    write_series(tmp_path / "ct", VOLUME, Modality="CT", SeriesDescription="CT Head")
    (tmp_path / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    (tmp_path / "README").write_text("not DICOM")
    (tmp_path / "notes.txt").write_bytes(bytes(128) + b"DICM")
    (record,) = discover(tmp_path, "clinic")
    assert list(record.images) == ["flair", "t1", "t1ce", "t2"]
    assert record.images["t1"] == tuple(f"b/c/IM{number:04d}" for number in range(4))
    assert (record.layout, record.source, record.labels) == ("dicom", "clinic", ())
    assert "ep2d_diff_ADC) is left out" in caplog.text
    assert "CT Head) is left out: its modality is CT" in caplog.text


def test_the_manifest_does_not_tell_who_it_is(tmp_path: Path) -> None:
    write_study(tmp_path, {"a": "FLAIR"})
    (record,) = discover(tmp_path, "x")
    text = record.model_dump_json()
    assert "4711" not in text
    assert "Doe" not in text
    assert record.patient_id is not None
    assert record.patient_id.startswith("dicom-")


def test_two_visits_of_one_patient_share_the_patient(tmp_path: Path) -> None:
    write_study(tmp_path / "1", {"a": "FLAIR"})
    write_study(tmp_path / "2", {"a": "FLAIR"})
    first, second = discover(tmp_path, "x")
    assert first.patient_id == second.patient_id
    assert first.study_id != second.study_id


@pytest.mark.parametrize("nobody", ["", "ANON", "Anonymized", "anonymous01", "000", "unknown"])
def test_placeholders_do_not_join_patients(nobody: str) -> None:
    assert pseudonym(nobody, "1.2.3") != pseudonym(nobody, "1.2.4")
    assert pseudonym("17", "1.2.3") == pseudonym("17", "1.2.4")


def test_tcga_barcode_meets_the_lgg_set() -> None:
    assert pseudonym("TCGA-HT-7473", "1.2.3") == "TCGA_HT_7473"


def test_the_better_of_two_series_is_taken_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    study = generate_uid()
    common = {"StudyInstanceUID": study}
    write_series(tmp_path / "thick", VOLUME[:, :, :3], SeriesDescription="T1 thick", SeriesNumber=1, **common)
    write_series(tmp_path / "fine", VOLUME, SeriesDescription="T1 fine", SeriesNumber=2, **common)
    derived = {"ImageType": ["DERIVED", "SECONDARY"], "SeriesDescription": "T1 reformatted", "SeriesNumber": 3}
    write_series(tmp_path / "mpr", VOLUME.repeat(2, axis=2), **common, **derived)
    (record,) = discover(tmp_path, "x")
    assert record.images["t1"][0].startswith("fine/")
    assert (
        "t1 is taken from series 2 (T1 fine), not from series 1 (T1 thick), series 3 (T1 reformatted)" in caplog.text
    )


def test_dual_echo_is_told_apart(tmp_path: Path) -> None:
    common = {"StudyInstanceUID": generate_uid(), "SeriesInstanceUID": generate_uid(), "RepetitionTime": 3000}
    for echo in (14, 98):
        write_series(tmp_path, VOLUME, name=f"e{echo}_{{}}", SeriesDescription="PD T2 dual", EchoTime=echo, **common)
    (record,) = discover(tmp_path, "x")
    assert list(record.images) == ["t2"]
    assert all(path.startswith("e98_") for path in record.images["t2"])


def test_magnitude_and_phase_in_one_series_are_told_apart(tmp_path: Path) -> None:
    common = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.4", "SeriesDescription": "T1 mprage"}
    for part in ("M", "P"):
        write_series(tmp_path, VOLUME, name=part + "{}", ImageType=["ORIGINAL", "PRIMARY", part], **common)
    (record,) = discover(tmp_path, "x")
    assert record.images["t1"] == tuple(f"M{number}" for number in range(4))


def test_localiser_of_three_planes_and_a_broken_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    common = {"StudyInstanceUID": generate_uid()}
    write_series(tmp_path / "good", VOLUME, SeriesDescription="FLAIR", **common)
    planes = {**common, "SeriesInstanceUID": generate_uid(), "SeriesDescription": "T2 haste"}
    write_series(tmp_path / "loc", VOLUME, name="a{}", **planes)
    write_series(tmp_path / "loc", VOLUME, name="b{}", axes=SAGITTAL, **planes)
    broken = tmp_path / "good" / "IM0009"
    broken.write_bytes((tmp_path / "good" / "IM0001").read_bytes()[:200])
    (record,) = discover(tmp_path, "x")
    assert list(record.images) == ["flair"]
    assert "T2 haste) is left out" in caplog.text
    assert "different directions" in caplog.text


def test_same_file_twice_counts_once(tmp_path: Path) -> None:
    files = write_series(tmp_path, VOLUME, **FLAIR)
    (tmp_path / "copy.dcm").write_bytes(files[0].read_bytes())
    (record,) = discover(tmp_path, "x")
    assert len(record.images["flair"]) == 4


def test_files_come_in_spatial_order(tmp_path: Path) -> None:
    files = write_series(tmp_path, VOLUME, name="1.2.840.113619.{}", shuffle=True, **FLAIR)
    (record,) = discover(tmp_path, "x")
    assert record.images["flair"] == tuple(path.name for path in files)


def test_nothing_usable_says_why(tmp_path: Path) -> None:
    write_series(tmp_path, VOLUME, SeriesDescription="ADC map")
    with pytest.raises(SourceError, match=r"ADC map\) is left out: its description says 'adc'"):
        discover(tmp_path, "x")


def test_files_named_as_dicom_that_are_not_say_so(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(b"")
    (tmp_path / "b.DCM").write_bytes(b"no preamble")
    with pytest.raises(SourceError, match=r"2 files, e.g. a.dcm, are named as DICOM and hold no DICOM image"):
        discover(tmp_path, "x")


def test_dicom_beside_nifti(tmp_path: Path) -> None:
    write_series(tmp_path / "dcm", VOLUME, name="{}.dcm", **FLAIR)
    (tmp_path / "A_flair.nii.gz").write_bytes(b"x")
    assert sorted(record.layout for record in discover(tmp_path, "x")) == ["brats", "dicom"]


# Modalities.


@pytest.mark.parametrize(
    ("text", "modality"),
    [
        ("t2_tirm_tra_dark-fluid", "flair"),
        ("AX T2 FLAIR", "flair"),
        ("FLAIR +C", "flair"),
        ("Sag CUBE T2FLAIR", "flair"),
        ("Ax T1 FLAIR", "t1"),
        ("t1_mprage_sag_p2_iso", "t1"),
        ("t1_mpr_ns_sag_p2_iso", "t1"),
        ("3D BRAVO", "t1"),
        ("AX 3D T1 SPGR PRE", "t1"),
        ("T1w", "t1"),
        ("AX T1 WITHOUT CONTRAST", "t1"),
        ("T1 post-op pre gd", "t1"),
        ("T1wCE", "t1ce"),
        ("AX T1 POST", "t1ce"),
        ("SAG T1 +C", "t1ce"),
        ("T1 C+", "t1ce"),
        ("t1_mprage_tra_KM", "t1ce"),
        ("3D T1 MPRAGE GAD", "t1ce"),
        ("Ax BRAVO post gd", "t1ce"),
        ("AxT1 gd", "t1ce"),
        ("t2_tse_tra_320_p2", "t2"),
        ("T2w", "t2"),
        ("AX FSE T2", "t2"),
        ("AX T2* GRE", None),
        ("t2_fl2d_tra_hemo", None),
        ("STIR COR", None),
        ("localizer", None),
        ("3-Plane Loc", None),
        ("ep2d_diff_3scan_trace_ADC", None),
        ("SWI_Images", None),
        ("TOF_3D_multi-slab", None),
        ("T1 SUB", None),
        ("T1 map", None),
        ("MIP T1 +C", None),
        ("test1", None),
        ("", None),
    ],
)
def test_description_tells_modality(text: str, modality: str | None) -> None:
    assert recognise(Acquisition(text=text))[0] == modality


@pytest.mark.parametrize(
    ("times", "sequence", "modality"),
    [
        ((9000, 110, 2500), ("SE", "IR"), "flair"),
        ((5000, 380, 1800), ("SE", "IR"), "flair"),
        ((500, 10, None), ("SE",), "t1"),
        ((2000, 9, 860), ("SE", "IR"), "t1"),
        ((1900, 2.5, 900), ("GR", "IR"), "t1"),
        ((8, 3, None), ("GR",), "t1"),
        ((4000, 100, None), ("SE",), "t2"),
        ((3200, 408, None), ("SE",), "t2"),
        ((600, 25, None), ("GR",), None),
        ((4000, 60, 160), ("SE", "IR"), None),
        ((3000, 15, None), ("SE",), None),
        ((6000, 90, None), ("EP",), None),
        ((None, None, None), (), None),
        ((0, 0, 0), ("SE",), None),
    ],
)
def test_timing_tells_modality(times: tuple[Any, ...], sequence: tuple[str, ...], modality: str | None) -> None:
    tr, te, ti = times
    taken = Acquisition(sequence=sequence, repetition_ms=tr, echo_ms=te, inversion_ms=ti)
    assert recognise(taken)[0] == modality


def test_contrast_agent_decides_where_the_description_does_not() -> None:
    for agent, modality in (("Gadovist", "t1ce"), ("", "t1"), ("NONE", "t1")):
        assert recognise(Acquisition(text="AX T1", contrast_agent=agent))[0] == modality
    assert recognise(Acquisition(text="AX T1 PRE", contrast_agent="Gadovist"))[0] == "t1"
    assert recognise(Acquisition(text="AX T1 W/WO", contrast_agent="Gadovist"))[0] == "t1ce"


def test_image_type_excludes() -> None:
    assert recognise(Acquisition(text="T1", image_type=("ORIGINAL", "PRIMARY", "LOCALIZER")))[0] is None
    assert recognise(Acquisition(text="T1", image_type=("DERIVED", "SECONDARY", "MPR")))[0] == "t1"


# Whatever a file holds.

ANY_TEXT = st.one_of(st.text(max_size=20), st.sampled_from(["1e999", "nan", "-1", "0", "1\\2", "a\\b\\c", "1e400"]))
FIXED = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.4", "SOPInstanceUID": None}
KEYS = (
    "EchoTime", "InversionTime", "RepetitionTime", "SeriesNumber", "ImagePositionPatient", "ImageOrientationPatient",
    "PixelSpacing", "ImageType", "SeriesDescription", "PatientID", "RescaleSlope", "NumberOfFrames",
    "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "ContrastBolusAgent", "ScanningSequence", "Modality",
)  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=60, deadline=None)
@given(tags=st.dictionaries(st.sampled_from(KEYS), ANY_TEXT, min_size=1, max_size=4))
def test_any_tag_values_end_in_records_or_one_error(tmp_path_factory: Any, tags: dict[str, str]) -> None:
    folder = tmp_path_factory.mktemp("hostile")
    files = write_series(folder, VOLUME[:, :, :3], **FLAIR, **FIXED)
    dataset = pydicom.dcmread(files[1])
    for key, value in tags.items():
        raw = value.encode("utf-8", "replace")[:40]
        raw += b" " * (len(raw) % 2)
        tag = pydicom.tag.Tag(key)
        # Raw bytes, past the checks of the library that writes them.
        vr = pydicom.datadict.dictionary_VR(tag)
        dataset[tag] = pydicom.dataelem.RawDataElement(tag, vr, len(raw), raw, 0, False, True)
    dataset.save_as(files[1])
    _discover_and_load(folder)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("place", "byte"), [(133, 0), (140, 1), (132, 255), (150, 255), (300, 255)])
def test_damage_to_one_byte_is_survived(tmp_path: Path, place: int, byte: int) -> None:
    files = write_series(tmp_path, VOLUME[:, :, :3], **FLAIR, **FIXED)
    content = bytearray(files[1].read_bytes())
    content[place] = byte
    files[1].write_bytes(bytes(content))
    _discover_and_load(tmp_path)
    files[1].write_bytes(bytes(content[:141]))
    _discover_and_load(tmp_path)


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_damage_ends_in_records_or_one_error(tmp_path_factory: Any, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    files = write_series(folder, VOLUME[:, :, :3], **FLAIR, **FIXED)
    content = bytearray(files[1].read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(132, len(content) - 1))] = data.draw(st.integers(0, 255))
    files[1].write_bytes(bytes(content[: data.draw(st.integers(0, len(content)))]))
    _discover_and_load(folder)


@pytest.mark.parametrize("length", [450, 500, 560])
def test_a_damaged_file_beside_a_series_is_told_in_the_study(tmp_path: Path, length: int) -> None:
    """The stack may lack a slice at its end, which nothing else would show."""
    files = write_series(tmp_path, VOLUME, **FLAIR, **FIXED)
    files[-1].write_bytes(files[-1].read_bytes()[:length])
    (record,) = discover(tmp_path, "x")
    study = read_study(record, tmp_path)
    assert len(study.channels[0]) == VOLUME.shape[2] - 1
    assert any(files[-1].name in warning and "left out" in warning for warning in study.warnings)


def _discover_and_load(folder: Path) -> None:
    try:
        records = discover(folder, "x")
    except SourceError:
        return
    assert len({record.study_id for record in records}) == len(records)
    for record in records:
        for files in record.images.values():
            try:
                data, affine, _ = load([folder / name for name in files])
            except StudyError:
                continue
            assert data.ndim == 3
            assert np.isfinite(affine).all()
