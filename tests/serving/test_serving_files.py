"""Files of every kind in every kind of request, one bad one among them, and hostile ones."""

from __future__ import annotations

import base64
import gzip
import io
import zipfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import orjson
import pytest
from dicom_writing import SAGITTAL, write_enhanced, write_series
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from serving.codecs import v2
from serving.torchserve.batch import answer
from serving.torchserve.figures import BatchFigures, observations
from serving.torchserve.jobs import Reply, Served
from slicewise.inference.predictor import Prediction, PredictOptions, Predictor, SliceInput

SPACING = (0.9, 1.1, 3.0)
Floats = NDArray[np.float32]


@pytest.fixture(scope="module")
def volume() -> Floats:
    """``[Z, H, W]``; the first slice is empty."""
    rng = np.random.default_rng(5)
    rows, columns = np.mgrid[:40, :36]
    inside = ((rows - 20) / 17) ** 2 + ((columns - 18) / 15) ** 2 < 1
    slices = [
        np.where(inside, 200 + 90 * np.sin(rows / (2 + z)) + rng.normal(0, 9, inside.shape), 0) for z in range(4)
    ]
    slices[0][:] = 0
    return np.stack(slices).astype(np.int16).astype(np.float32)


def nifti(data: NDArray[Any], packed: bool = True) -> bytes:
    """``[Z, H, W]`` in display orientation as a file, or ``[H, W]`` as one slice."""
    affine = np.diag([-SPACING[1], -SPACING[0], SPACING[2], 1.0])
    content: bytes = nib.Nifti1Image(data.T.astype(np.int16), affine).to_bytes()
    return gzip.compress(content) if packed else content


def npz(arrays: dict[str, NDArray[Any]], level: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", level) as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.save(member, array)
            archive.writestr(f"{name}.npy", member.getvalue())
    return buffer.getvalue()


def ask(predictor: Predictor, body: Any, headers: dict[str, str] | None = None, **served: Any) -> Reply:
    (reply,) = answer([(body, headers or {})], predictor, Served(predictor.bundle, "slicewise", **served))
    return reply


def fields(reply: Reply) -> dict[str, Any]:
    assert reply.status == 200, reply.body
    content: dict[str, Any] = orjson.loads(reply.body)
    return content


def direct(
    predictor: Predictor, image: NDArray[Any], modalities: tuple[str, ...] = ("unknown",), pixel_mm: Any = (1.0, 1.0)
) -> Prediction:
    outcome = predictor.predict([SliceInput(image, modalities, pixel_mm)], PredictOptions())[0]
    assert isinstance(outcome, Prediction)
    return outcome


@pytest.mark.parametrize("packed", [True, False])
def test_a_nifti_volume_is_answered_slice_by_slice(packed: bool, predictor: Predictor, volume: Floats) -> None:
    answered = fields(ask(predictor, nifti(volume, packed)))["predictions"]
    assert len(answered) == len(volume)
    assert "error" in answered[0]
    for plane, told in zip(volume[1:], answered[1:], strict=True):
        expected = direct(predictor, plane[np.newaxis], pixel_mm=SPACING[:2])
        assert told["tumor_probability"] == pytest.approx(expected.tumor_probability, abs=1e-5)
        assert (told["height"], told["width"]) == plane.shape
        pixels = told["tumor_area_pixels"]["WT"]
        assert told["tumor_area_mm2"]["WT"] == pytest.approx(pixels * SPACING[0] * SPACING[1], rel=1e-5)


def test_a_nifti_slice_is_one_image(predictor: Predictor, volume: Floats) -> None:
    told = fields(ask(predictor, nifti(volume[2]), {"x-slicewise-params": '{"modalities": "t2", "pixel_mm": 2}'}))
    expected = direct(predictor, volume[2][np.newaxis], ("t2",), (2.0, 2.0))
    assert told["tumor_probability"] == pytest.approx(expected.tumor_probability, abs=1e-5)
    assert told["tumor_area_mm2"]["WT"] == 4 * told["tumor_area_pixels"]["WT"]


def test_dicom_images(predictor: Predictor, volume: Floats, tmp_path: Path) -> None:
    stored = volume.transpose(2, 1, 0).astype(np.uint16)
    named = {"SeriesDescription": "AX FLAIR", "Modality": "MR"}
    plain = write_series(tmp_path / "a", stored, spacing=(1.1, 0.9, 3.0), **named)[2].read_bytes()
    told = fields(ask(predictor, plain))
    expected = direct(predictor, volume[2][np.newaxis], ("flair",), SPACING[:2])
    assert told["tumor_probability"] == pytest.approx(expected.tumor_probability, abs=1e-5)
    assert told["tumor_area_mm2"]["WT"] is not None
    # One sagittal picture stays the picture that it is, instead of becoming 36 slices of one column.
    sagittal = write_series(tmp_path / "b", stored, axes=SAGITTAL)[2].read_bytes()
    told = fields(ask(predictor, sagittal))
    assert (told["height"], told["width"]) == volume[2].shape
    frames = write_enhanced(tmp_path / "c" / "IM", stored).read_bytes()
    answered = fields(ask(predictor, frames))["predictions"]
    assert ["error" in item for item in answered] == [True, False, False, False]


def test_npz_names_its_modalities(predictor: Predictor, volume: Floats) -> None:
    told = fields(ask(predictor, npz({"t2": volume[1], "flair": volume[2]})))
    expected = direct(predictor, np.stack([volume[1], volume[2]]), ("t2", "flair"))
    assert told["tumor_probability"] == pytest.approx(expected.tumor_probability, abs=1e-5)
    answered = fields(ask(predictor, npz({"t1": volume, "t2": volume})))["predictions"]
    assert len(answered) == len(volume)
    refused = orjson.loads(ask(predictor, npz({"ct": volume[1]})).body)["error"]
    assert "'ct'" in refused["message"]
    assert b"different shapes" in ask(predictor, npz({"t1": volume[1], "t2": volume[1][1:]})).body


def test_v1_carries_volumes_and_slices_and_a_bad_one_fails_alone(predictor: Predictor, volume: Floats) -> None:
    files = [nifti(volume), nifti(volume)[:-40], nifti(volume[3])]
    instances = [{"image": {"b64": base64.b64encode(file).decode()}} for file in files]
    first, second, third = fields(ask(predictor, {"instances": instances}))["predictions"]
    assert len(first["predictions"]) == len(volume)
    assert second["error"]["message"].startswith("instances[1].image is truncated or damaged")
    assert third["tumor_probability"] == first["predictions"][3]["tumor_probability"]


def binary(files: list[bytes], **parameters: Any) -> tuple[bytes, dict[str, str]]:
    array = np.empty(len(files), dtype=np.object_)
    array[:] = files
    body, length = v2.write(v2.Message({"image_bytes": array}, parameters), "inputs", binary=True)
    return body, {v2.LENGTH_HEADER.lower(): str(length)}


def test_v2_carries_one_volume_or_many_slices(predictor: Predictor, volume: Floats) -> None:
    reply = ask(predictor, *binary([nifti(volume)]))
    tensors = v2.parse(reply.body, reply.headers[v2.LENGTH_HEADER], "outputs").tensors
    assert tensors["mask"].shape == (4, 3, 40, 36)
    assert [bool(text) for text in tensors["error"]] == [True, False, False, False]
    reply = ask(predictor, *binary([nifti(volume[1]), nifti(volume)], tasks="classify"))
    tensors = v2.parse(reply.body, reply.headers[v2.LENGTH_HEADER], "outputs").tensors
    assert tensors["error"][0] == b""
    assert b"send a volume alone" in tensors["error"][1]


def test_options_of_one_request_do_not_reach_another_in_the_batch(predictor: Predictor, volume: Floats) -> None:
    image = volume[1][np.newaxis, np.newaxis]
    options: list[dict[str, Any]] = [
        {},
        {"conditional": True, "threshold": 1.0},
        {"conditional": True, "threshold": 0.0},
        {"tasks": "explain", "explain_method": "occlusion"},
        {"tasks": "explain"},
        {"tasks": "uncertainty", "n_mc_samples": 3, "use_tta": True},
        {"threshold": 0.25},
    ]
    requests = []
    for parameters in options:
        body, length = v2.write(v2.Message({"image": image}, parameters), "inputs", binary=True)
        requests.append((body, {v2.LENGTH_HEADER.lower(): str(length)}))
    served = Served(predictor.bundle, "slicewise")
    together = answer(requests, predictor, served)
    assert [reply.status for reply in together] == [200] * len(options)
    for request, reply in zip(requests, together, strict=True):
        alone = answer([request], predictor, served)[0]
        mine, theirs = (v2.parse(one.body, one.headers[v2.LENGTH_HEADER], "outputs") for one in (alone, reply))
        assert list(mine.tensors) == list(theirs.tensors)
        assert mine.parameters.get("decoded") == theirs.parameters.get("decoded")
        assert mine.parameters["threshold"] == theirs.parameters["threshold"]
        for name in {"mask", "gradcam", "tumor_probability"} & set(mine.tensors):
            np.testing.assert_allclose(mine.tensors[name], theirs.tensors[name], atol=1e-5)


def announced(shape: tuple[int, int, int], packed: bytes = b"") -> bytes:
    """A NIfTI header that promises more than follows."""
    header = nib.Nifti1Image(np.zeros((2, 2, 2), np.int16), np.eye(4)).header.copy()
    header.set_data_shape(shape)
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    return bytes(header.binaryblock) + bytes(4) + packed


HUGE = (2000, 2000, 2000)


@pytest.mark.parametrize(
    ("body", "status", "named"),
    [
        (announced(HUGE), 413, "megapixels"),
        (gzip.compress(announced(HUGE)), 413, "megapixels"),
        (gzip.compress(announced((200, 200, 100)) + bytes(1000)), 400, "truncated or damaged"),
        (gzip.compress(bytes(1 << 24)), 400, "damaged"),
        (announced((2, 2, 1500), bytes(12000)), 413, "1500 slices"),
        (b"PK\x03\x04" + bytes(40), 400, "npz"),
        (npz({"t1": np.zeros((8, 4000, 4000), np.float32)}), 413, "megapixels"),
        (b"\x1f\x8b" + bytes(60), 400, "gzip"),
        (bytes(128) + b"DICM" + bytes(60), 400, "DICOM"),
        (b"%PDF-1.7" + bytes(60), 415, "no known kind"),
    ],
)
def test_hostile_files_are_refused_and_nothing_of_ours_is_told(
    body: bytes, status: int, named: str, predictor: Predictor
) -> None:
    reply = ask(predictor, body)
    assert reply.status == status, reply.body
    assert named in reply.body.decode()
    assert orjson.loads(reply.body)["error"]["cure"]
    assert b"/tmp" not in reply.body


def test_many_small_files_share_one_budget(predictor: Predictor, volume: Floats) -> None:
    plane = nifti(volume[1])
    body, headers = binary([plane, plane, plane], tasks="classify")
    size = volume[1].size
    reply = ask(predictor, body, headers, max_voxels=size // 2)
    errors = v2.parse(reply.body, reply.headers[v2.LENGTH_HEADER], "outputs").tensors["error"]
    assert [bool(text) for text in errors] == [False, False, True]
    assert b"too_large" in errors[2]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["nii", "nii.gz", "npz", "dicom"]),
    cuts=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=8)), max_size=4),
    share=st.floats(0.05, 1),
)
def test_no_damage_is_answered_with_a_server_error(
    kind: str, cuts: list[tuple[float, bytes]], share: float, predictor: Predictor, whole: dict[str, bytes]
) -> None:
    data = bytearray(whole[kind])
    for at, replacement in cuts:
        start = int(at * (len(data) - 1))
        data[start : start + len(replacement)] = replacement
    reply = ask(predictor, bytes(data[: int(len(data) * share)]), {"x-slicewise-params": '{"tasks": "classify"}'})
    assert reply.status in (200, 400, 413, 415), reply.body
    assert b"/tmp" not in reply.body
    assert b"Traceback" not in reply.body


@pytest.fixture(scope="module")
def whole(volume: Floats, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    stored = volume.transpose(2, 1, 0).astype(np.uint16)
    dicom = write_series(tmp_path_factory.mktemp("dicom"), stored)[1].read_bytes()
    plane = volume[1:3, :12, :12]
    return {"nii": nifti(plane, False), "nii.gz": nifti(plane), "npz": npz({"t1": plane[0]}), "dicom": dicom}


def test_a_batch_tells_its_figures(predictor: Predictor, volume: Floats) -> None:
    figures = BatchFigures()
    probe = binary([nifti(volume[1])], tasks="classify")
    requests = [
        (nifti(volume), {}),
        (b"{", {}),
        (probe[0], probe[1] | {"x-slicewise-probe": "1"}),
        ({"describe": True}, {}),
    ]
    answer(requests, predictor, Served(predictor.bundle, "slicewise"), figures)
    told = {(name, label): value for name, value, label in observations(figures)}
    assert told["slicewise_batch_requests", ""] == 2
    assert told["slicewise_slices_total", ""] == 3
    assert told["slicewise_bad_items_total", "invalid_input"] == 2
    assert 0 <= told["slicewise_tumour_rate", ""] <= 1
    inside = volume[volume != 0]
    assert told["slicewise_input_intensity", "mean"] == pytest.approx(float(inside.mean()), rel=1e-3)
    assert all(told["slicewise_phase_seconds", phase] > 0 for phase in ("decode", "network", "encode"))
