"""The clients of KServe and Triton, as they are, against a running stack."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from tritonclient.http import InferenceServerClient, InferRequestedOutput
from tritonclient.http import InferInput as TritonInput
from tritonclient.utils import InferenceServerException

import serving.gateway.sdk  # noqa: F401 - before KServe, whose import reads the command line
from serving.state import StackState
from slicewise.inference.predictor import Prediction, PredictOptions, Predictor, SliceInput

# isort: split
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

NAME, VERSION = "slicewise", "3"
Encode = Callable[..., bytes]


@pytest.fixture(scope="module")
def expected(predictor: Predictor, head: NDArray[np.uint8]) -> Prediction:
    outcome = predictor.predict([SliceInput(head[np.newaxis], ("unknown",))], PredictOptions())[0]
    assert isinstance(outcome, Prediction)
    return outcome


@pytest.fixture(scope="module")
def image(head: NDArray[np.uint8]) -> NDArray[np.float32]:
    return head[np.newaxis, np.newaxis].astype(np.float32)


@pytest.fixture(scope="module")
def triton(stack: StackState) -> Iterator[InferenceServerClient]:
    with InferenceServerClient(stack.gateway_url.removeprefix("http://"), network_timeout=60) as client:
        yield client


def triton_input(name: str, array: NDArray[Any], datatype: str, binary: bool) -> TritonInput:
    item = TritonInput(name, list(array.shape), datatype)
    item.set_data_from_numpy(array, binary_data=binary)
    return item


def objects(*items: bytes) -> NDArray[Any]:
    array = np.empty(len(items), dtype=np.object_)
    array[:] = items
    return array


def test_triton_http_health_and_metadata(triton: InferenceServerClient) -> None:
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready(NAME)
    assert triton.is_model_ready(NAME, VERSION)
    assert not triton.is_model_ready(NAME, "77")
    metadata = triton.get_model_metadata(NAME)
    assert (metadata["name"], metadata["versions"]) == (NAME, [VERSION])
    assert {item["name"]: item["datatype"] for item in metadata["inputs"]} == {
        "image": "FP32",
        "image_bytes": "BYTES",
    }
    assert triton.get_server_metadata()["name"]


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_triton_http_numbers(
    binary_in: bool,
    binary_out: bool,
    triton: InferenceServerClient,
    image: NDArray[np.float32],
    expected: Prediction,
) -> None:
    answer = triton.infer(
        NAME,
        [triton_input("image", image, "FP32", binary_in)],
        outputs=[InferRequestedOutput(name, binary_data=binary_out) for name in ("mask", "tumor_probability")],
        request_id="q-1",
        parameters={"threshold": 0.25, "tasks": "segment"},
    )
    response = answer.get_response()
    assert (response["id"], response["model_name"], response["model_version"]) == ("q-1", NAME, VERSION)
    assert response["parameters"]["threshold"] == 0.25
    assert [output["name"] for output in response["outputs"]] == ["mask", "tumor_probability"]
    assert answer.as_numpy("tumor_probability")[0] == pytest.approx(expected.tumor_probability, abs=1e-5)
    np.testing.assert_array_equal(answer.as_numpy("mask")[0], expected.mask)


def test_triton_http_files(
    triton: InferenceServerClient, head: NDArray[np.uint8], encoded: Encode, expected: Prediction
) -> None:
    png = encoded(head)
    binary = triton.infer(NAME, [triton_input("image_bytes", objects(png, png[:400]), "BYTES", True)], VERSION)
    text = triton.infer(NAME, [triton_input("image_bytes", objects(base64.b64encode(png)), "BYTES", False)])
    for answer in (binary, text):
        assert answer.as_numpy("tumor_probability")[0] == pytest.approx(expected.tumor_probability, abs=1e-5)
    first, second = binary.as_numpy("error")
    assert first == b""
    assert "truncated" in json.loads(second)["error"]["message"]


def test_triton_http_compression(
    triton: InferenceServerClient, image: NDArray[np.float32], expected: Prediction
) -> None:
    answer = triton.infer(NAME, [triton_input("image", image, "FP32", True)], response_compression_algorithm="gzip")
    assert answer.as_numpy("tumor_probability")[0] == pytest.approx(expected.tumor_probability, abs=1e-5)


@pytest.mark.parametrize(
    ("asked", "status", "named"),
    [
        ({"model_name": "other"}, "404", "other"),
        ({"model_version": "77"}, "404", "77"),
        ({"parameters": {"threshold": 7}}, "400", "threshold"),
        ({"outputs": [InferRequestedOutput("nonsense")]}, "400", "nonsense"),
    ],
)
def test_triton_http_errors(
    asked: dict[str, Any], status: str, named: str, triton: InferenceServerClient, image: NDArray[np.float32]
) -> None:
    request = {"model_name": NAME, "inputs": [triton_input("image", image, "FP32", True)]}
    with pytest.raises(InferenceServerException) as caught:
        triton.infer(**request | asked)
    assert caught.value.status() == status
    assert named in caught.value.message()


def test_triton_grpc(
    stack: StackState,
    tmp_path: Path,
    head: NDArray[np.uint8],
    image: NDArray[np.float32],
    encoded: Encode,
    expected: Prediction,
) -> None:
    np.savez(tmp_path / "arrays.npz", image=image, png=np.frombuffer(encoded(head), np.uint8))
    script = Path(__file__).with_name("triton_calls.py")
    command = [sys.executable, str(script), f"127.0.0.1:{stack.grpc_port}", str(tmp_path / "arrays.npz")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout)
    assert told["health"] == [True, True, True]
    assert told["other versions are ready"] is False
    assert told["server"]
    assert told["metadata"] == [NAME, [VERSION], ["image", "image_bytes"]]
    assert (told["outputs"], told["id"], told["version"]) == (["mask", "tumor_probability"], "q-1", VERSION)
    assert float(told["threshold"]) == 0.25
    assert told["probability"] == pytest.approx(expected.tumor_probability, abs=1e-5)
    assert told["by file"] == pytest.approx(expected.tumor_probability, abs=1e-5)
    np.testing.assert_array_equal(told["mask"], expected.mask)
    assert told["wrong name"][0] == "StatusCode.INVALID_ARGUMENT"
    assert "image" in told["wrong name"][1]
    assert told["wrong model"][0] == "StatusCode.NOT_FOUND"
    assert told["wrong version"][0] == "StatusCode.NOT_FOUND"


def kserve_request(name: str, array: NDArray[Any], datatype: str, binary: bool, **asked: Any) -> InferRequest:
    item = InferInput(name, list(array.shape), datatype)
    item.set_data_from_numpy(array, binary_data=binary)
    return InferRequest(NAME, [item], **asked)


@pytest.mark.parametrize("binary", [True, False])
def test_kserve_rest_v2(
    binary: bool,
    stack: StackState,
    head: NDArray[np.uint8],
    image: NDArray[np.float32],
    encoded: Encode,
    expected: Prediction,
) -> None:
    async def run() -> None:
        async with InferenceRESTClient(RESTConfig(protocol="v2", timeout=60)) as client:
            url = stack.gateway_url
            assert await client.is_server_live(url)
            assert await client.is_server_ready(url)
            assert await client.is_model_ready(url, NAME)
            wanted = [RequestedOutput(name, {"binary_data": binary}) for name in ("mask", "tumor_probability")]
            request = kserve_request("image", image, "FP32", binary, request_id="q-2", request_outputs=wanted)
            answer = await client.infer(url, request, model_name=NAME)
            # Its REST answers leave the version out, whatever the server says.
            assert (answer.id, answer.model_name) == ("q-2", NAME)
            outputs = {output.name: output.as_numpy() for output in answer.outputs}
            assert list(outputs) == ["mask", "tumor_probability"]
            assert outputs["tumor_probability"][0] == pytest.approx(expected.tumor_probability, abs=1e-5)
            np.testing.assert_array_equal(outputs["mask"][0], expected.mask)
            file = encoded(head) if binary else base64.b64encode(encoded(head))
            request = kserve_request("image_bytes", objects(file), "BYTES", binary)
            by_file = await client.infer(url, request, model_name=NAME)
            outputs = {output.name: output.as_numpy() for output in by_file.outputs}
            assert outputs["tumor_probability"][0] == pytest.approx(expected.tumor_probability, abs=1e-5)
            for name, status in ((NAME, 400), ("other", 404)):
                with pytest.raises(httpx.HTTPStatusError) as caught:
                    await client.infer(url, kserve_request("picture", image, "FP32", binary), model_name=name)
                assert caught.value.response.status_code == status

    asyncio.run(run())


def test_kserve_rest_v1(stack: StackState, head: NDArray[np.uint8], encoded: Encode, expected: Prediction) -> None:
    async def run() -> None:
        async with InferenceRESTClient(RESTConfig(protocol="v1", timeout=60)) as client:
            url, item = stack.gateway_url, {"image": {"b64": base64.b64encode(encoded(head)).decode()}}
            assert await client.is_server_live(url)
            assert await client.is_model_ready(url, NAME)
            answer = await client.infer(url, {"instances": [item]}, model_name=NAME)
            assert answer["predictions"][0]["tumor_probability"] == pytest.approx(
                expected.tumor_probability, abs=1e-5
            )
            explained = await client.explain(url, model_name=NAME, data={"instances": [item]})
            assert explained["predictions"][0]["gradcam_base64"]
            with pytest.raises(httpx.HTTPStatusError) as caught:
                await client.infer(url, {"instances": []}, model_name=NAME)
            assert caught.value.response.status_code == 400

    asyncio.run(run())


@pytest.mark.parametrize("raw", [True, False])
def test_kserve_grpc(
    raw: bool,
    stack: StackState,
    image: NDArray[np.float32],
    head: NDArray[np.uint8],
    encoded: Encode,
    expected: Prediction,
) -> None:
    async def run() -> None:
        async with InferenceGRPCClient(f"127.0.0.1:{stack.grpc_port}", timeout=60) as client:
            assert await client.is_server_live()
            assert await client.is_server_ready()
            assert await client.is_model_ready(NAME)
            wanted = [RequestedOutput(name) for name in ("mask", "tumor_probability")]
            request = kserve_request("image", image, "FP32", raw, request_id="q-3", request_outputs=wanted)
            answer = await client.infer(request)
            assert (answer.id, answer.model_name, answer.model_version) == ("q-3", NAME, VERSION)
            outputs = {output.name: output.as_numpy() for output in answer.outputs}
            assert list(outputs) == ["mask", "tumor_probability"]
            assert outputs["tumor_probability"][0] == pytest.approx(expected.tumor_probability, abs=1e-5)
            np.testing.assert_array_equal(outputs["mask"][0], expected.mask)
            # Without raw contents this client sends nothing but UTF-8.
            request = kserve_request("image_bytes", objects(encoded(head)), "BYTES", True, model_version=VERSION)
            outputs = {output.name: output.as_numpy() for output in (await client.infer(request)).outputs}
            assert outputs["tumor_probability"][0] == pytest.approx(expected.tumor_probability, abs=1e-5)
            with pytest.raises(grpc.RpcError) as caught:
                await client.infer(kserve_request("picture", image, "FP32", raw))
            assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT

    asyncio.run(run())
