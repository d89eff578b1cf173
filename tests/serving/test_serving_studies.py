"""Whole studies on a real stack: answered at once, and as jobs, against the Predictor on the same files."""

from __future__ import annotations

import base64
import io
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import nibabel as nib
import numpy as np
import pydicom
import pytest
from uploaded_study import SHAPE, SPACING, UploadedStudy, labels_of_nifti, make_upload, regions, zipped

from serving.gateway.rest.schemas_studies import JobAnswer, StudyAnswer
from serving.state import StackState
from slicewise.config import REGIONS
from slicewise.inference.predictor import Predictor
from slicewise.inference.study import StudyPrediction, StudySettings, predict_study
from slicewise.studies.layouts import discover
from slicewise.studies.orientation import restore_orientation
from slicewise.studies.reading import read_study
from slicewise.studies.study import Study, StudyRecord

DEADLINE_S = 60.0
VOXEL_ML = float(np.prod(SPACING)) / 1000


@pytest.fixture(scope="module")
def client(stack: StackState) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=stack.gateway_url, timeout=60, trust_env=False) as client:
        yield client


@pytest.fixture(scope="module")
def upload(tmp_path_factory: pytest.TempPathFactory) -> UploadedStudy:
    return make_upload(tmp_path_factory.mktemp("upload"))


@pytest.fixture(scope="module")
def direct(upload: UploadedStudy, predictor: Predictor) -> tuple[Study, StudyPrediction]:
    """The four NIfTI files, read and predicted without any server."""
    images = {name: (path.name,) for name, path in upload.nifti.items()}
    record = StudyRecord(study_id="x", patient_id=None, source="x", layout="nifti", images=images)
    study = read_study(record, upload.folder)
    return study, predict_study(study, predictor.predict, StudySettings.of(predictor.meta))


@pytest.fixture(scope="module")
def direct_dicom(upload: UploadedStudy, predictor: Predictor) -> tuple[Study, StudyPrediction]:
    (record,) = discover(upload.folder / "dicom", "x")
    study = read_study(record, upload.folder / "dicom")
    return study, predict_study(study, predictor.predict, StudySettings.of(predictor.meta))


def dicom_zip(upload: UploadedStudy) -> bytes:
    return zipped({f"{path.parent.name}/{path.name}": path.read_bytes() for path in upload.dicom})


def analyze(client: httpx.Client, **request: Any) -> dict[str, Any]:
    response = client.post("/patient/analyze_stack", **request)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    StudyAnswer.model_validate(answer)
    return answer


def require_like(answer: dict[str, Any], expected: StudyPrediction) -> None:
    assert answer["tumor_probability"] == pytest.approx(expected.tumor_probability, abs=1e-5)
    assert answer["decision"] == expected.decision
    for entry, record in zip(answer["slices"], expected.slices, strict=True):
        assert entry["tumor_probability"] == pytest.approx(record.tumor_probability, abs=1e-5)
    assert expected.measures is not None
    for name in REGIONS:
        assert answer["volumes_ml"][name] == pytest.approx(
            expected.measures.regions[name].volume_ml, abs=3 * VOXEL_ML
        )


@pytest.mark.parametrize("how", ["form fields", "file names", "parameter", "json", "zip"])
def test_nifti_files_by_every_way_of_naming_them(
    how: str, client: httpx.Client, upload: UploadedStudy, direct: tuple[Study, StudyPrediction]
) -> None:
    content = {name: path.read_bytes() for name, path in upload.nifti.items()}
    names = {name: path.name for name, path in upload.nifti.items()}
    coded = [{"name": names[name], "data": base64.b64encode(data).decode()} for name, data in content.items()]
    request: dict[str, Any] = {
        "form fields": {"files": {name: ("scan.nii.gz", data) for name, data in content.items()}},
        "file names": {"files": [("files", (names[name], data)) for name, data in content.items()]},
        "parameter": {
            "files": [("files", (f"{index}.nii.gz", data)) for index, data in enumerate(content.values())],
            "params": {"modalities": ",".join(content)},
        },
        "json": {"json": {"files": coded}},
        "zip": {
            "content": zipped({f"case/{names[name]}": data for name, data in content.items()}),
            "headers": {"content-type": "application/zip"},
        },
    }[how]
    answer = analyze(client, **request)
    require_like(answer, direct[1])
    assert answer["modalities"] == list(direct[1].modalities)
    assert answer["shape"] == list(direct[0].channels[0].shape)
    assert answer["spacing_mm"] == pytest.approx(list(direct[0].spacing_mm))
    assert answer["model"]["version"] == "3"
    assert answer["mask"] is None


def test_one_file_of_unknown_modality(client: httpx.Client, upload: UploadedStudy) -> None:
    data = upload.nifti["flair"].read_bytes()
    raw = analyze(client, content=data, headers={"content-type": "application/gzip"})
    named = analyze(client, files={"flair": ("x.nii.gz", data)})
    assert raw["tumor_probability"] == pytest.approx(named["tumor_probability"], abs=1e-6)
    assert "not told" in raw["warnings"][0]
    assert named["warnings"] == []


def test_masks_of_a_waiting_caller(
    client: httpx.Client, upload: UploadedStudy, direct: tuple[Study, StudyPrediction], tmp_path: Path
) -> None:
    files = {name: ("scan.nii.gz", path.read_bytes()) for name, path in upload.nifti.items()}
    nifti = analyze(client, files=files, params={"mask_format": "nifti"})
    image = labels_of_nifti(base64.b64decode(nifti["mask"]), tmp_path)
    npy = analyze(client, files=files, params={"mask_format": "npy"})
    mask = np.load(io.BytesIO(base64.b64decode(npy["mask"])))
    expected = direct[1].mask
    assert expected is not None
    assert (mask != expected).mean() < 1e-4
    np.testing.assert_allclose(image.affine, upload.phantom.affine, atol=1e-4)
    assert image.shape == SHAPE
    labels = np.asarray(image.dataobj)
    whole = restore_orientation(mask.any(axis=0), upload.phantom.affine, SHAPE)
    np.testing.assert_array_equal(labels > 0, whole)
    for name in REGIONS:
        assert npy["affected_slices"][name] == np.flatnonzero(mask[REGIONS.index(name)].any(axis=(1, 2))).tolist()


@pytest.mark.parametrize("how", ["zip", "loose"])
def test_dicom(
    how: str, client: httpx.Client, upload: UploadedStudy, direct_dicom: tuple[Study, StudyPrediction]
) -> None:
    loose = [("files", (f"{path.parent.name}_{path.name}", path.read_bytes())) for path in upload.dicom]
    request = {"files": {"files": ("scan.zip", dicom_zip(upload))}} if how == "zip" else {"files": loose}
    answer = analyze(client, **request)
    require_like(answer, direct_dicom[1])
    assert answer["modalities"] == ["flair", "t1ce"]
    assert answer["spacing_mm"] == pytest.approx([5.0, 2.5, 2.0])


@pytest.mark.parametrize("sized", [True, False])
def test_a_stack_of_pictures(sized: bool, client: httpx.Client, upload: UploadedStudy, encoded: Any) -> None:
    volume = upload.phantom.images["flair"]
    planes = [(volume[:, :, z].T / volume.max() * 255).astype(np.uint8) for z in range(SHAPE[2])]
    params = {"modalities": "flair"} | ({"pixel_mm": "2.5,2", "slice_mm": "5"} if sized else {})
    files = [("files", (f"{index}.png", encoded(plane))) for index, plane in enumerate(planes)]
    answer = analyze(client, files=files, params=params)
    assert answer["n_slices"] == SHAPE[2]
    assert (answer["volumes_ml"]["WT"] is not None) is sized
    assert (answer["measures"] is not None) is sized
    whole = io.BytesIO()
    np.save(whole, np.stack(planes))
    at_once = analyze(client, content=whole.getvalue(), params=params)
    rows = analyze(client, json={"images": [plane.tolist() for plane in planes], **params})
    for other in (at_once, rows):
        assert other["tumor_probability"] == pytest.approx(answer["tumor_probability"], abs=1e-5)
        assert other["volumes_ml"] == answer["volumes_ml"]


def broken(upload: UploadedStudy, **changes: Any) -> dict[str, bytes]:
    """FLAIR and T1, one of them changed."""
    content = {name: upload.nifti[name].read_bytes() for name in ("flair", "t1")}
    return content | changes


def nifti(data: np.ndarray, affine: np.ndarray) -> bytes:
    return bytes(nib.Nifti1Image(data, affine).to_bytes())


def test_bad_studies_are_told_by_their_own_names(client: httpx.Client, upload: UploadedStudy) -> None:
    flair, affine = upload.phantom.images["flair"], upload.phantom.affine
    moved = affine.copy()
    moved[:3, 3] += 30
    bomb = nifti(np.zeros((2, 2, 2), dtype=np.int16), np.eye(4))
    bomb = bomb[:42] + np.array([30000, 30000, 30000], dtype="<i2").tobytes() + bomb[48:]
    cut = upload.nifti["t1"].read_bytes()[:-200]
    table: list[tuple[dict[str, bytes], int, str]] = [
        (broken(upload, t1=cut), 400, "scan_t1.nii.gz"),
        (broken(upload, t1=nifti(flair, moved)), 400, "affine"),
        (broken(upload, t1=bomb), 413, "voxels"),
        (broken(upload, t1=nifti(np.full(SHAPE, np.nan, np.float32), affine)), 400, "no finite value"),
        ({"flair": nifti(np.zeros(SHAPE, np.int16), affine)}, 400, "constant"),
        (broken(upload, t1=b"GIF89a"), 415, "scan_t1.nii.gz"),
        (broken(upload, t1=zipped({"a": b"x"})), 400, "zip"),
        (broken(upload, t1=upload.dicom[0].read_bytes()), 400, "several kinds"),
        (broken(upload, t1=b""), 400, "empty"),
    ]
    for content, status, named in table:
        files = {name: (f"scan_{name}.nii.gz", data) for name, data in content.items()}
        response = client.post("/patient/analyze_stack", files=files)
        assert response.status_code == status, (named, response.text)
        error = response.json()["error"]
        assert named in error["message"] + error["cure"]
        assert error["cure"]
        assert "/tmp" not in response.text
        assert "slicewise-uploads" not in response.text


def test_bad_archives(client: httpx.Client, upload: UploadedStudy) -> None:
    one, two = (upload.nifti[name].read_bytes() for name in ("flair", "t1"))
    table = [
        (zipped({"a/x_flair.nii.gz": one, "b/y_flair.nii.gz": two}), 400, "2 studies"),
        (zipped({"notes.txt": b"nothing"}), 400, "no study"),
        (zipped({"../x_flair.nii.gz": one}), 400, "outside"),
        (zipped({"zeros_flair.nii": bytes(17 << 20)}), 413, "unpacks"),
        (dicom_zip(upload)[:-300], 400, "damaged"),
    ]
    for content, status, named in table:
        response = client.post("/patient/analyze_stack", content=content, headers={"content-type": "application/zip"})
        assert response.status_code == status, response.text
        assert named in response.json()["error"]["message"]
        assert "/tmp" not in response.text


def submit(client: httpx.Client, **request: Any) -> dict[str, Any]:
    response = client.post("/predict/async", **request)
    assert response.status_code == 202, response.text
    job: dict[str, Any] = response.json()
    assert response.headers["location"] == f"/jobs/{job['job_id']}"
    return job


def wait(client: httpx.Client, job_id: str) -> dict[str, Any]:
    """Look at a job until it is over; every look must keep to the schema."""
    until = time.monotonic() + DEADLINE_S
    while time.monotonic() < until:
        answer = client.get(f"/jobs/{job_id}")
        job = JobAnswer.model_validate(answer.json())
        if job.state in ("done", "failed"):
            return dict(answer.json())
    raise AssertionError("the job did not end")


def test_a_job_of_nifti_files(
    client: httpx.Client, upload: UploadedStudy, direct: tuple[Study, StudyPrediction], tmp_path: Path
) -> None:
    job = submit(client, files={name: ("s.nii.gz", path.read_bytes()) for name, path in upload.nifti.items()})
    told = wait(client, job["job_id"])
    assert told["state"] == "done", told
    assert told["progress"] == {"slices_done": SHAPE[2], "slices": SHAPE[2]}
    assert set(told["files"]) == {"result", "mask"}
    result = client.get(told["files"]["result"]).json()
    StudyAnswer.model_validate(result)
    require_like(result, direct[1])
    image = labels_of_nifti(client.get(told["files"]["mask"]).content, tmp_path)
    np.testing.assert_allclose(image.affine, upload.phantom.affine, atol=1e-4)
    found = regions(np.asarray(image.dataobj))
    assert found["ET"] * VOXEL_ML == pytest.approx(result["volumes_ml"]["ET"])
    seg = client.get(f"/jobs/{job['job_id']}/seg.dcm")
    assert seg.status_code == 422
    assert "not DICOM" in seg.json()["error"]["message"]


def test_a_job_of_dicom_gives_a_segmentation_of_its_images(
    client: httpx.Client, upload: UploadedStudy, direct_dicom: tuple[Study, StudyPrediction]
) -> None:
    headers = {"content-type": "application/zip", "x-request-id": "study-7"}
    told = wait(client, submit(client, content=dicom_zip(upload), headers=headers)["job_id"])
    assert told["state"] == "done", told
    assert client.get(told["files"]["result"]).json()["request_id"] == "study-7"
    dataset = pydicom.dcmread(io.BytesIO(client.get(told["files"]["seg"]).content))
    assert dataset.Modality == "SEG"
    flair = [pydicom.dcmread(path) for path in upload.dicom if path.parent.name == "flair"]
    assert dataset.StudyInstanceUID == flair[0].StudyInstanceUID
    assert dataset.FrameOfReferenceUID == flair[0].FrameOfReferenceUID
    places = {image.SOPInstanceUID: tuple(image.ImagePositionPatient) for image in flair}
    mask = direct_dicom[1].mask
    assert mask is not None
    grid = direct_dicom[0].grid
    assert grid is not None
    frames = dataset.pixel_array.reshape(-1, SHAPE[1], SHAPE[0])
    seen = np.zeros((3, SHAPE[2], SHAPE[1], SHAPE[0]), dtype=np.uint8)
    for frame, group in zip(frames, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        source = group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        place = tuple(group.PlanePositionSequence[0].ImagePositionPatient)
        assert place == places[source]
        segment = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber - 1
        slice_number = round(float(place[2]) / SPACING[2])
        seen[segment, slice_number] = frame
    for index in range(3):
        expected = restore_orientation(mask[index], grid.affine, SHAPE).transpose(2, 1, 0)
        assert (seen[index] != expected).mean() < 1e-4
    assert [item.SegmentLabel for item in dataset.SegmentSequence] == [
        "Whole tumour (WT)", "Tumour core (TC)", "Enhancing tumour (ET)",
    ]  # fmt: skip


def test_a_failed_job_tells_message_and_cure(client: httpx.Client, upload: UploadedStudy) -> None:
    cut = upload.nifti["t1"].read_bytes()[:-200]
    job = wait(client, submit(client, files={"t1": ("mine.nii.gz", cut)})["job_id"])
    assert job["state"] == "failed"
    assert "mine.nii.gz" in job["error"]["message"]
    assert job["error"]["cure"]
    assert job["files"] == {}
    for name in ("result", "mask.nii.gz", "seg.dcm"):
        response = client.get(f"/jobs/{job['job_id']}/{name}")
        assert response.status_code == 409
        assert "mine.nii.gz" in response.json()["error"]["message"]
        assert "/tmp" not in response.text


def test_jobs_are_deleted_and_not_guessed(client: httpx.Client, upload: UploadedStudy) -> None:
    job = submit(client, files={"t1": ("x.nii.gz", upload.nifti["t1"].read_bytes())})["job_id"]
    assert client.delete(f"/jobs/{job}").status_code == 204
    for path in (f"/jobs/{job}", f"/jobs/{job}/result", f"/jobs/{secrets.token_urlsafe(24)}"):
        response = client.get(path)
        assert response.status_code == 404
        assert response.json()["error"]["code"] == "unknown_job"
    assert client.delete(f"/jobs/{job}").status_code == 404
    again = wait(client, submit(client, files={"t1": ("x.nii.gz", upload.nifti["t1"].read_bytes())})["job_id"])
    assert again["state"] == "done"


def test_a_full_queue_is_told_with_the_time_to_come_again(client: httpx.Client, upload: UploadedStudy) -> None:
    files = {name: ("s.nii.gz", path.read_bytes()) for name, path in upload.nifti.items()}
    accepted, refused = [], None
    for _ in range(40):
        response = client.post("/predict/async", files=files)
        if response.status_code == 429:
            refused = response
            break
        accepted.append(response.json()["job_id"])
    assert refused is not None
    assert int(refused.headers["retry-after"]) > 0
    assert "8 jobs wait" in refused.json()["error"]["message"]
    for job in accepted[1:]:
        client.delete(f"/jobs/{job}")
    assert wait(client, accepted[0])["state"] == "done"


def test_real_scans(client: httpx.Client, shared_data: Path, tmp_path: Path) -> None:
    """Cut down to what the stack's small limit takes; the spacing is the header's."""
    path = sorted((shared_data / "brats").rglob("*flair.nii*"))[0]
    scan = nib.load(path).slicer[50:190, 40:200, 60:70]
    answer = analyze(client, files={"flair": ("flair.nii", scan.to_bytes())}, params={"mask_format": "nifti"})
    assert answer["shape"] == [10, 160, 140]
    assert answer["n_analyzed"] == 10
    image = labels_of_nifti(base64.b64decode(answer["mask"]), tmp_path)
    np.testing.assert_allclose(image.affine, scan.affine, atol=1e-3)
    whole = regions(np.asarray(image.dataobj))["WT"]
    assert answer["volumes_ml"]["WT"] <= whole * float(np.prod(scan.header.get_zooms())) / 1000 + 1e-6
