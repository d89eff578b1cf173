"""SliceWise's own routes for slices and batches, on a real stack, against the Predictor."""

from __future__ import annotations

import asyncio
import base64
import gzip
import io
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import nibabel as nib
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from uploaded_study import SHAPE, SPACING, UploadedStudy, make_upload

from serving.codecs.masks import from_run_lengths
from serving.gateway.inprocess import InProcessBackend
from serving.gateway.model import SliceWiseModel
from serving.gateway.rest.asking import Asked
from serving.gateway.rest.batches import ask_all
from serving.gateway.rest.parameters import SliceParameters
from serving.gateway.rest.schemas import SCHEMA_VERSION
from serving.gateway.rest.schemas_slices import (
    ClassifyAnswer,
    ClassifyBatch,
    GradcamAnswer,
    MultitaskAnswer,
    SegmentAnswer,
    SegmentBatch,
    UncertaintyAnswer,
)
from serving.gateway.rest.slices import SliceRoutes
from serving.gateway.rest.uploads import Item
from serving.gateway.warmup import requests, warm_up
from serving.state import StackState
from serving.status import BusyError
from serving.torchserve.jobs import Served
from slicewise.config import REGIONS, ServeConfig
from slicewise.inference.predictor import Prediction, PredictOptions, Predictor, SliceInput

Encode = Callable[..., bytes]
FIXED = ("model", "request_id", "schema_version", "research_use", "timings_ms")


@pytest.fixture(scope="module")
def client(stack: StackState) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=stack.gateway_url, timeout=60, trust_env=False) as client:
        yield client


def test_the_warm_up_goes_through_every_route_for_a_slice(
    stack: StackState, predictor: Predictor, caplog: pytest.LogCaptureFixture
) -> None:
    backend = InProcessBackend(predictor, Served(predictor.bundle, "slicewise"), ServeConfig())
    routes = SliceRoutes(SliceWiseModel("slicewise", backend)).router().routes
    assert {request.path for request in requests()} == {getattr(route, "path", "") for route in routes}
    with caplog.at_level(logging.WARNING, "serving.gateway.warmup"):
        asyncio.run(warm_up(stack.gateway_url))
    assert not caplog.records


def predict(predictor: Predictor, image: NDArray[Any], **options: Any) -> Prediction:
    outcome = predictor.predict([SliceInput(image[np.newaxis], ("unknown",))], PredictOptions(**options))[0]
    assert isinstance(outcome, Prediction)
    return outcome


def picture(text: str) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


def npy(text: str) -> NDArray[Any]:
    return np.load(io.BytesIO(base64.b64decode(text)))


def post(client: httpx.Client, path: str, png: bytes, **parameters: Any) -> dict[str, Any]:
    response = client.post(path, files={"file": ("slice.png", png)}, params=parameters)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    assert answer["schema_version"] == SCHEMA_VERSION
    assert set(answer["timings_ms"]) >= {"read", "backend", "encode", "total", "preprocess", "network", "postprocess"}
    return answer


def test_gradcam(client: httpx.Client, head: NDArray[np.uint8], encoded: Encode, predictor: Predictor) -> None:
    expected = predict(predictor, head, tasks=("classify", "explain"), explain_method="hirescam")
    answer = post(client, "/classify/gradcam", encoded(head), explain_method="hirescam")
    GradcamAnswer.model_validate(answer)
    assert expected.gradcam is not None
    np.testing.assert_allclose(picture(answer["gradcam_base64"]) / 255, expected.gradcam, atol=2 / 255)
    assert picture(answer["gradcam_overlay"]).shape == (*head.shape, 3)
    assert answer["explain_method"] == "hirescam"


@pytest.mark.parametrize("form", ["png", "npy", "rle"])
def test_masks_areas_and_pieces_are_the_predictors(
    form: str, client: httpx.Client, head: NDArray[np.uint8], encoded: Encode, predictor: Predictor
) -> None:
    (expected,) = predictor.predict([SliceInput(head[np.newaxis], ("unknown",), (0.5, 2.0))])
    assert isinstance(expected, Prediction)
    answer = post(client, "/segment", encoded(head), mask_format=form, pixel_mm="0.5,2")
    SegmentAnswer.model_validate(answer)
    assert expected.mask is not None
    read = {"png": lambda text: picture(text) // 255, "npy": npy, "rle": from_run_lengths}[form]
    for name, plane in zip(REGIONS, expected.mask, strict=True):
        np.testing.assert_array_equal(read(answer["masks"][name]), plane)
        labels, count = ndimage.label(plane, np.ones((3, 3)))
        assert answer["components"][name]["count"] == count
        assert sorted(answer["components"][name]["sizes_pixels"]) == sorted(np.bincount(labels.ravel())[1:].tolist())
        assert answer["tumor_area_mm2"][name] == pytest.approx(plane.sum() * 1.0)
    assert (answer["mask_base64"] is None) == (form != "png")
    assert answer["overlay"] is None
    assert answer["probability_maps"] is None


def test_probability_maps_and_overlay_on_demand(
    client: httpx.Client, head: NDArray[np.uint8], encoded: Encode, predictor: Predictor
) -> None:
    expected = predict(predictor, head)
    answer = post(client, "/segment", encoded(head), probability_map=True, map_format="npy", overlay=True)
    assert expected.region_probability is not None
    for name, plane in zip(REGIONS, expected.region_probability, strict=True):
        np.testing.assert_allclose(npy(answer["probability_maps"][name]), plane, atol=1e-5)
    assert picture(answer["overlay"]).shape == (*head.shape, 3)
    plain = post(client, "/segment", encoded(head))
    assert {key: answer[key] for key in ("ood_score", "ood_flag", "masks")} == {
        key: plain[key] for key in ("ood_score", "ood_flag", "masks")
    }


def test_uncertainty(client: httpx.Client, head: NDArray[np.uint8], encoded: Encode) -> None:
    answer = post(client, "/segment/uncertainty", encoded(head), mc_iterations=3, use_tta=True, map_format="npy")
    UncertaintyAnswer.model_validate(answer)
    told = answer["uncertainty"]
    assert (answer["n_mc_samples"], answer["use_tta"]) == (3, True)
    maps = {name: npy(told[name]) for name in ("map", "epistemic_map", "aleatoric_map")}
    assert maps["map"].shape == head.shape
    np.testing.assert_allclose(maps["map"], maps["epistemic_map"] + maps["aleatoric_map"], atol=1e-4)
    assert told["mean"] == pytest.approx(told["epistemic"] + told["aleatoric"], abs=1e-4)
    assert 0 < maps["map"].max() <= np.log(2) + 1e-6
    assert told["sources"]
    assert told["tumor_probability_std"] >= 0


@pytest.mark.parametrize(("threshold", "segmented"), [(0.0, True), (1.0, False)])
def test_multitask_segments_only_what_shows_tumour(
    threshold: float, segmented: bool, client: httpx.Client, head: NDArray[np.uint8], encoded: Encode
) -> None:
    answer = post(client, "/predict_multitask", encoded(head), threshold=threshold)
    MultitaskAnswer.model_validate(answer)
    assert answer["segmented"] is segmented
    assert answer["tumor_label"] is segmented
    assert "not a diagnosis" in answer["recommendation"]
    assert picture(answer["overlay"]).shape == (*head.shape, 3)
    if not segmented:
        assert answer["tumor_area_pixels"] == {"WT": 0, "TC": 0, "ET": 0}
        whole = post(client, "/predict_multitask", encoded(head), threshold=threshold, conditional=False)
        assert whole["segmented"] is True


def test_the_query_wins_over_the_body(client: httpx.Client, head: NDArray[np.uint8], encoded: Encode) -> None:
    body = {"image": head.tolist(), "threshold": 0.9}
    assert client.post("/classify", json=body).json()["threshold"] == 0.9
    assert client.post("/classify", json=body, params={"threshold": 0.2}).json()["threshold"] == 0.2
    form = client.post("/classify", files={"file": encoded(head)}, data={"threshold": "0.3"}).json()
    assert form["threshold"] == 0.3


def test_a_version_is_asked_for_by_name(client: httpx.Client, head: NDArray[np.uint8]) -> None:
    for version, status in (("3", 200), ("4", 404)):
        for how in (
            {"params": {"version": version}, "json": {"image": head.tolist()}},
            {"json": {"image": head.tolist(), "version": version}},
        ):
            assert client.post("/classify", **how).status_code == status


def test_batches_answer_each_image_like_a_single_one(
    client: httpx.Client, head: NDArray[np.uint8], encoded: Encode
) -> None:
    images = [head, head[::-1], np.ascontiguousarray(head[10:, 5:])]
    files = [("files", (f"{index}.png", encoded(image))) for index, image in enumerate(images)]
    response = client.post("/segment/batch", files=files, params={"pixel_mm": "1"})
    batch = response.json()
    SegmentBatch.model_validate(batch)
    assert (batch["n_images"], batch["n_failed"], batch["failed"]) == (3, 0, [])
    for index, (entry, image) in enumerate(zip(batch["results"], images, strict=True)):
        single = post(client, "/segment", encoded(image), pixel_mm="1")
        assert (entry.pop("index"), entry.pop("name")) == (index, f"{index}.png")
        assert entry["tumor_probability"] == pytest.approx(single.pop("tumor_probability"), abs=1e-5)
        for name in ("masks", "components", "tumor_area_mm2", "decision", "height", "width"):
            assert entry[name] == single[name]
        assert set(entry) - {"tumor_probability"} == set(single) - set(FIXED)


def test_one_bad_image_fails_alone(client: httpx.Client, head: NDArray[np.uint8], encoded: Encode) -> None:
    good = base64.b64encode(encoded(head)).decode()
    images = [
        good,
        "%%",
        {"name": "cut.png", "image": good[:400]},
        [[1, 2], [3]],
        head.tolist(),
        [[0, 0], [0, 0]],
        {"b64": good},
    ]
    response = client.post("/classify/batch", json={"images": images})
    assert response.status_code == 200, response.text
    batch = response.json()
    ClassifyBatch.model_validate(batch)
    failed = [index for index, entry in enumerate(batch["results"]) if "error" in entry]
    assert failed == [1, 2, 3, 5]
    assert batch["failed"] == ["images[1]", "cut.png", "images[3]", "images[5]"]
    assert batch["n_failed"] == 4
    assert all(batch["results"][index]["error"]["cure"] for index in failed)
    probabilities = [batch["results"][index]["tumor_probability"] for index in (0, 4, 6)]
    np.testing.assert_allclose(probabilities, probabilities[0], atol=1e-5)


def test_a_batch_of_bad_images_is_answered_without_a_model(client: httpx.Client) -> None:
    batch = client.post("/classify/batch", json={"images": ["", "x"]}).json()
    assert batch["model"] is None
    assert batch["n_failed"] == 2


@pytest.mark.parametrize(("path", "most"), [("/classify/batch", 100), ("/segment/batch", 50)])
def test_batches_have_a_limit(path: str, most: int, client: httpx.Client) -> None:
    full = client.post(path, json={"images": [[[0, 0]]] * most})
    assert (full.status_code, full.json()["n_failed"]) == (200, most)
    over = client.post(path, json={"images": [[[0, 0]]] * (most + 1)})
    assert over.status_code == 400
    assert str(most) in over.json()["error"]["cure"]


@pytest.mark.parametrize("path", ["/classify/batch", "/segment/batch", "/patient/analyze_stack", "/predict/async"])
@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ({"json": {}}, 400),
        ({"json": {"images": []}}, 400),
        ({"json": [1]}, 400),
        ({"json": {"images": [[[1, 2]]], "colour": "red"}}, 400),
        ({"content": b"[", "headers": {"content-type": "application/json"}}, 400),
        ({"content": b"x", "headers": {"content-type": "text/plain"}}, 415),
        ({"content": b"--x", "headers": {"content-type": "multipart/form-data"}}, 400),
        ({"files": {"threshold": (None, "0.5")}}, 400),
    ],
)
def test_wrong_requests_are_refused(path: str, request_: dict[str, Any], status: int, client: httpx.Client) -> None:
    response = client.post(path, **request_)
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert error["message"]
    assert error["cure"]


def test_files_that_tell_their_spacing(client: httpx.Client, predictor: Predictor, tmp_path: Path) -> None:
    """NIfTI and DICOM give areas in mm² without a parameter; a volume is sent elsewhere."""
    upload = make_upload(tmp_path)
    z = SHAPE[2] // 2
    plane, affine = upload.phantom.images["flair"][:, :, z : z + 1], upload.phantom.affine
    expected = predictor.predict([SliceInput(plane[:, :, 0].T[np.newaxis], ("flair",), (SPACING[1], SPACING[0]))])[0]
    assert isinstance(expected, Prediction)
    assert expected.mask is not None
    files = {
        "flair.nii.gz": (gzip.compress(nib.Nifti1Image(plane, affine).to_bytes()), {"modalities": "flair"}),
        "flair.dcm": (dicom_slice(upload, z), {}),
    }
    for name, (data, parameters) in files.items():
        response = client.post("/segment", files={"file": (name, data)}, params={**parameters, "overlay": True})
        assert response.status_code == 200, response.text
        answer = response.json()
        assert answer["tumor_probability"] == pytest.approx(expected.tumor_probability, abs=1e-5)
        for region, mask in zip(REGIONS, expected.mask, strict=True):
            assert answer["tumor_area_mm2"][region] == pytest.approx(mask.sum() * SPACING[0] * SPACING[1])
        assert picture(answer["overlay"]).shape == (SHAPE[1], SHAPE[0], 3)
    whole = client.post("/segment", files={"file": ("x.nii.gz", upload.nifti["flair"].read_bytes())})
    assert whole.status_code == 400
    assert f"{SHAPE[2]} slices" in whole.json()["error"]["message"]
    assert "/patient/analyze_stack" in whole.json()["error"]["cure"]


def dicom_slice(upload: UploadedStudy, z: int) -> bytes:
    """The file of one slice of the FLAIR series, whatever its name."""
    files = [path for path in upload.dicom if path.parent.name == "flair"]
    return next(path for path in files if pydicom.dcmread(path).InstanceNumber == z + 1).read_bytes()


def test_npz_names_its_modalities(client: httpx.Client, head: NDArray[np.uint8], predictor: Predictor) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, t1=head, t2=head[::-1])
    image = np.stack([head, head[::-1]])
    (expected,) = predictor.predict([SliceInput(image, ("t1", "t2"))])
    assert isinstance(expected, Prediction)
    answer = client.post("/classify", files={"file": ("two.npz", buffer.getvalue())}).json()
    assert answer["tumor_probability"] == pytest.approx(expected.tumor_probability, abs=1e-5)


def test_a_busy_model_server_is_waited_for_or_told(head: NDArray[np.uint8], predictor: Predictor) -> None:
    """Eight images at once where one may be in flight: patience answers all, and none is one plain error."""
    items = [Item(f"images[{index}]", "", head[np.newaxis]) for index in range(12)]

    async def story(patience_s: float) -> list[Any]:
        config = ServeConfig(max_in_flight=1, max_waiting=0)
        backend = InProcessBackend(predictor, Served(predictor.bundle, "slicewise"), config)
        try:
            return await ask_all(backend, "slicewise", items, SliceParameters(), "classify", patience_s)
        finally:
            await backend.close()

    assert all(isinstance(outcome, Asked) for outcome in asyncio.run(story(60.0)))
    with pytest.raises(BusyError):
        asyncio.run(story(0.0))


def test_the_openapi_document_describes_every_route(client: httpx.Client) -> None:
    told = client.get("/openapi.json").json()
    posts = {path for path, methods in told["paths"].items() if "post" in methods}
    assert posts == {
        "/classify", "/classify/gradcam", "/classify/batch", "/segment", "/segment/uncertainty", "/segment/batch",
        "/patient/analyze_stack", "/predict_multitask", "/predict/async",
    }  # fmt: skip
    for path in posts:
        operation = told["paths"][path]["post"]
        content = operation["requestBody"]["content"]
        names = {parameter["name"] for parameter in operation["parameters"]}
        assert {"multipart/form-data", "application/json"} <= set(content)
        for kind in ("multipart/form-data", "application/json"):
            assert names <= set(content[kind]["schema"]["properties"])
        assert all(parameter["description"] for parameter in operation["parameters"])
        assert {"400", "413", "415", "429", "500"} <= set(operation["responses"])
        assert "422" not in operation["responses"]
    samples = next(
        item
        for item in told["paths"]["/segment/uncertainty"]["post"]["parameters"]
        if item["name"] == "mc_iterations"
    )
    assert (samples["schema"]["minimum"], samples["schema"]["maximum"]) == (1, 50)


def test_the_documentation_page_asks_nobody_else(client: httpx.Client) -> None:
    page = client.get("/docs")
    assert page.status_code == 200
    assert "http://" not in page.text
    assert "https://" not in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]


def test_classify_keeps_to_its_schema(client: httpx.Client, head: NDArray[np.uint8], encoded: Encode) -> None:
    answer = post(client, "/classify", encoded(head))
    assert set(answer) == set(ClassifyAnswer.model_fields)
