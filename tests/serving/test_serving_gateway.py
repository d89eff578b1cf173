"""The gateway's routes and protocols on a real stack."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import io
import urllib.parse
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from serving.codecs import v2
from serving.local import smoke_requests
from serving.state import StackState
from slicewise import RESEARCH_USE
from slicewise.inference.predictor import Prediction, PredictOptions, Predictor, SliceInput

Encode = Callable[..., bytes]
LIMIT_MB = 4


@pytest.fixture(scope="module")
def client(stack: StackState) -> Any:
    with httpx.Client(base_url=stack.gateway_url, timeout=60, trust_env=False) as client:
        yield client


@pytest.fixture(scope="module")
def expected(predictor: Predictor, head: NDArray[np.uint8]) -> Prediction:
    outcome = predictor.predict([SliceInput(head[np.newaxis], ("unknown",))], PredictOptions())[0]
    assert isinstance(outcome, Prediction)
    return outcome


def png_pixels(text: str) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


def test_health_and_info(client: httpx.Client, predictor: Predictor) -> None:
    for path in (
        "/healthz",
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models/slicewise/ready",
        "/v1/models/slicewise",
    ):
        assert client.get(path).status_code == 200, path
    info = client.get("/model/info").json()
    assert info["digest"] == predictor.bundle.digest
    assert info["version"] == "3"
    metadata = client.get("/v2/models/slicewise").json()
    assert [item["name"] for item in metadata["inputs"]] == ["image", "image_bytes"]


def test_page_asks_nobody_else(client: httpx.Client) -> None:
    page = client.get("/", headers={"accept": "text/html,*/*;q=0.8"})
    assert page.headers["content-type"].startswith("text/html")
    assert RESEARCH_USE in page.text
    assert "http://" not in page.text
    assert "https://" not in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]


@pytest.mark.parametrize("how", ["multipart", "raw png", "raw npy", "json rows", "json base64"])
def test_classify(
    how: str,
    client: httpx.Client,
    head: NDArray[np.uint8],
    encoded: Encode,
    expected: Prediction,
    predictor: Predictor,
) -> None:
    png = encoded(head)
    requests: dict[str, dict[str, Any]] = {
        "multipart": {"files": {"file": ("wrong-name.txt", png, "text/plain")}},
        "raw png": {"content": png, "headers": {"content-type": "image/png"}},
        "raw npy": {"content": encoded(head, "npy")},
        "json rows": {"json": {"image": head.tolist()}},
        "json base64": {"json": {"image": base64.b64encode(png).decode()}},
    }
    response = client.post("/classify", **requests[how])
    assert response.status_code == 200, response.text
    answer = response.json()
    assert answer["tumor_probability"] == pytest.approx(expected.tumor_probability, abs=1e-5)
    assert answer["predicted_label"] == ("tumour" if expected.tumor_label else "no tumour")
    shares = answer["calibrated_probabilities"]
    assert shares["no_tumor"] + shares["tumor"] == pytest.approx(1)
    assert answer["confidence"] == max(shares.values())
    assert answer["model"] == {"name": "slicewise", "version": "3", "digest": predictor.bundle.digest}
    assert answer["research_use"] == RESEARCH_USE
    assert answer["timings_ms"]["total"] > 0
    assert response.headers["x-request-id"] == answer["request_id"]
    assert "masks" not in answer


def test_jpeg_is_classified_as_its_own_pixels(
    client: httpx.Client, head: NDArray[np.uint8], encoded: Encode, predictor: Predictor
) -> None:
    jpeg = encoded(head, "JPEG")
    pixels = np.asarray(Image.open(io.BytesIO(jpeg)))[np.newaxis]
    direct = predictor.predict([SliceInput(pixels, ("t1",))], PredictOptions(("classify",)))[0]
    assert isinstance(direct, Prediction)
    answer = client.post("/classify", files={"file": jpeg}, params={"modalities": "t1", "threshold": 0.1}).json()
    assert answer["tumor_probability"] == pytest.approx(direct.tumor_probability, abs=1e-5)
    assert answer["threshold"] == 0.1


def test_segment_equals_the_predictor(
    client: httpx.Client, head: NDArray[np.uint8], encoded: Encode, expected: Prediction
) -> None:
    answer = client.post("/segment", files={"file": encoded(head)}).json()
    assert (answer["height"], answer["width"]) == head.shape
    assert expected.mask is not None
    for plane, name in zip(expected.mask, ("WT", "TC", "ET"), strict=True):
        pixels = png_pixels(answer["masks"][name])
        assert set(np.unique(pixels)) <= {0, 255}
        np.testing.assert_array_equal(pixels, plane * 255)
        assert answer["tumor_area_pixels"][name] == int(plane.sum())
        assert answer["tumor_area_mm2"][name] is None
    assert answer["mask_base64"] == answer["masks"]["WT"]


def test_areas_need_the_pixel_size(client: httpx.Client, head: NDArray[np.uint8], encoded: Encode) -> None:
    answer = client.post("/segment", files={"file": encoded(head)}, params={"pixel_mm": "0.5"}).json()
    for name, pixels in answer["tumor_area_pixels"].items():
        assert answer["tumor_area_mm2"][name] == pytest.approx(pixels * 0.25)


def test_smoke_requests(stack: StackState, head: NDArray[np.uint8], expected: Prediction) -> None:
    figures = smoke_requests(stack.gateway_url, SliceInput(head[np.newaxis], ("unknown",)))
    assert figures.tumor_probability == pytest.approx(expected.tumor_probability, abs=1e-5)
    assert figures.mask_shape == head.shape


def test_too_large_names_the_limit(client: httpx.Client) -> None:
    body = b"\x89PNG" + bytes(LIMIT_MB << 20)
    declared = client.post("/classify", content=body, headers={"content-type": "image/png"})
    streamed = client.post(
        "/v1/models/slicewise:predict", content=(body[at : at + 65536] for at in range(0, len(body), 65536))
    )
    for response in (declared, streamed):
        assert response.status_code == 413
        assert f"{LIMIT_MB} MB" in response.json()["error"]["message"]


def test_a_client_that_sends_all_before_it_reads_is_told_the_limit_too(stack: StackState) -> None:
    """Unread bytes at the close would reset the connection, and the answer would be lost."""
    address = urllib.parse.urlsplit(stack.gateway_url)
    with contextlib.closing(http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)) as line:
        line.request("POST", "/classify", bytes(3 * LIMIT_MB << 20), {"content-type": "image/png"})
        assert line.getresponse().status == 413


@pytest.mark.parametrize(
    ("request_", "status", "named"),
    [
        ({"content": b"\x89PNG\r\n\x1a\n\0\0", "headers": {"content-type": "image/png"}}, 400, "truncated"),
        ({"content": b"x", "headers": {"content-type": "text/css"}}, 415, "text/css"),
        ({"content": b"GIF89a", "headers": {"content-type": "application/octet-stream"}}, 415, "PNG, JPEG or npy"),
        ({"content": b"", "headers": {"content-type": "image/png"}}, 400, "empty"),
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 400, "not JSON"),
        ({"json": {"picture": 1}}, 400, "image"),
        ({"json": {"image": [[1, 2], [3]]}}, 400, "image"),
        ({"json": {"image": [[0, 0], [0, 0]]}}, 400, "constant"),
        ({"json": {"image": [[0, 9]]}, "params": {"threshold": "much"}}, 400, "threshold"),
        ({"json": {"image": [[0, 9]]}, "params": {"treshold": "1"}}, 400, "treshold"),
        ({"json": {"image": [[0, 9]]}, "params": {"modalities": "ct"}}, 400, "'ct'"),
        ({"json": {"image": [[0, 9]]}, "params": {"pixel_mm": "-1"}}, 400, "pixel_mm"),
        ({"files": {"other": b"x"}}, 400, "'file'"),
    ],
)
def test_errors_name_the_thing_and_the_cure(
    request_: dict[str, Any], status: int, named: str, client: httpx.Client
) -> None:
    response = client.post("/classify", **request_)
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert named in error["message"]
    assert error["cure"]
    assert "Traceback" not in response.text


def test_unknown_addresses_and_models(client: httpx.Client) -> None:
    assert client.get("/nope").json()["error"]["code"] == "not_found"
    assert client.post("/v1/models/other:predict", json={"instances": [1]}).status_code == 404
    answer = client.post("/v2/models/other/infer", json={"inputs": []})
    assert answer.status_code == 404
    assert isinstance(answer.json()["error"], str)


def test_v1_answers_a_bad_item_in_its_place(
    client: httpx.Client, head: NDArray[np.uint8], encoded: Encode, expected: Prediction
) -> None:
    good = {"image": {"b64": base64.b64encode(encoded(head)).decode()}}
    bad = {"image": {"b64": base64.b64encode(encoded(head)[:200]).decode()}}
    response = client.post("/v1/models/slicewise:predict", json={"instances": [good, bad, {"image": head.tolist()}]})
    first, second, third = response.json()["predictions"]
    assert second["error"]["message"].startswith("instances[1].image")
    for item in (first, third):
        assert item["tumor_probability"] == pytest.approx(expected.tumor_probability, abs=1e-5)
        assert png_pixels(item["mask_base64"]).shape == head.shape


@pytest.mark.parametrize("binary", [True, False])
def test_v2_over_http(binary: bool, client: httpx.Client, head: NDArray[np.uint8], expected: Prediction) -> None:
    images = np.stack([head[np.newaxis], head[np.newaxis, ::-1]]).astype(np.float32)
    body, length = v2.write(v2.Message({"image": images}, {"tasks": "segment"}, "abc"), "inputs", binary)
    headers = {v2.LENGTH_HEADER: str(length)} if binary else {"content-type": "application/json"}
    response = client.post("/v2/models/slicewise/infer", content=body, headers=headers)
    assert response.status_code == 200, response.text
    answer = v2.parse(response.content, response.headers.get(v2.LENGTH_HEADER), "outputs")
    assert (answer.id, answer.model_name, answer.model_version) == ("abc", "slicewise", "3")
    assert answer.tensors["tumor_probability"][0] == pytest.approx(expected.tumor_probability, abs=1e-5)
    assert answer.tensors["mask"].shape == (2, 3, *head.shape)
    np.testing.assert_array_equal(answer.tensors["mask"][0], expected.mask)


def test_v2_over_grpc(stack: StackState, head: NDArray[np.uint8], encoded: Encode, expected: Prediction) -> None:
    from kserve import InferenceGRPCClient, InferInput, InferRequest

    import serving.gateway.sdk  # noqa: F401 - first, as the SDK reads the command line

    async def ask(files: list[bytes]) -> Any:
        array = np.empty(len(files), dtype=np.object_)
        array[:] = files
        item = InferInput("image_bytes", [len(files)], "BYTES")
        item.set_data_from_numpy(array)
        async with InferenceGRPCClient(f"127.0.0.1:{stack.grpc_port}") as client:
            assert await client.is_server_ready()
            assert await client.is_model_ready("slicewise")
            return await client.infer(InferRequest("slicewise", [item], parameters={"tasks": "classify,segment"}))

    answer = asyncio.run(ask([encoded(head), encoded(head)[:250]]))
    outputs = {output.name: output.as_numpy() for output in answer.outputs}
    assert outputs["tumor_probability"][0] == pytest.approx(expected.tumor_probability, abs=1e-5)
    np.testing.assert_array_equal(outputs["mask"][0], expected.mask)
    assert b"truncated" in outputs["error"][1]


def test_grpc_errors_have_their_status(stack: StackState) -> None:
    import grpc

    from serving.gateway.sdk import messages, stubs

    with grpc.insecure_channel(f"127.0.0.1:{stack.grpc_port}") as channel:
        stub = stubs.GRPCInferenceServiceStub(channel)
        request = messages.ModelInferRequest(model_name="slicewise")
        request.inputs.add(name="picture", datatype="FP32", shape=[1])
        request.raw_input_contents.append(b"\0\0\0\0")
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelInfer(request, timeout=20)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "'image' or 'image_bytes'" in caught.value.details()


def test_a_bad_request_among_concurrent_ones_fails_alone(
    client: httpx.Client, head: NDArray[np.uint8], encoded: Encode, expected: Prediction
) -> None:
    good, bad = encoded(head), encoded(head)[:400]

    def post(index: int) -> httpx.Response:
        path = "/segment" if index % 3 else "/classify"
        return client.post(path, content=bad if index == 5 else good, headers={"content-type": "image/png"})

    with ThreadPoolExecutor(12) as pool:
        responses = list(pool.map(post, range(12)))
    assert [response.status_code for response in responses] == [200] * 5 + [400] + [200] * 6
    for response in responses[:5] + responses[6:]:
        assert response.json()["tumor_probability"] == pytest.approx(expected.tumor_probability, abs=1e-5)
