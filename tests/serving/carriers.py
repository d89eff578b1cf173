"""One file to the running stack by each way that there is, and what came back in one form."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
import httpx
import numpy as np

from serving.codecs import v2
from serving.gateway.sdk import messages, stubs
from serving.state import StackState

# Each gRPC status as the HTTP status of the same meaning.
GRPC_AS_HTTP = {
    grpc.StatusCode.OK: 200,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 413,
    grpc.StatusCode.UNIMPLEMENTED: 415,
}
TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Came:
    """An answer.

    Attributes:
        status: As HTTP; a gRPC status that is the server's fault counts as 500.
        text: The whole answer.
        probability: The tumour probability of the first slice, where the answer is a success.
    """

    status: int
    text: str
    probability: float | None = None


class Carriers:
    """Ways to a running stack.

    Args:
        stack: The stack.
    """

    def __init__(self, stack: StackState) -> None:
        self._gateway = httpx.Client(base_url=stack.gateway_url, timeout=TIMEOUT_S, trust_env=False)
        self._torchserve = httpx.Client(base_url=stack.torchserve_url, timeout=TIMEOUT_S, trust_env=False)
        self._channel = grpc.insecure_channel(f"127.0.0.1:{stack.grpc_port}")

    def close(self) -> None:
        """Close all connections."""
        self._gateway.close()
        self._torchserve.close()
        self._channel.close()

    @property
    def file_ways(self) -> dict[str, Callable[[bytes], Came]]:
        """By protocol."""
        return {
            "form": lambda data: self.post("/classify", files={"file": ("x", data)}),
            "raw": lambda data: self.post(
                "/classify", content=data, headers={"content-type": "application/octet-stream"}
            ),
            "json": lambda data: self.post("/classify", json={"image": _b64(data)}),
            "study": lambda data: self.post("/patient/analyze_stack", files={"files": ("x", data)}),
            "v1": lambda data: self.v1({"instances": [{"image": {"b64": _b64(data)}}]}),
            "v2 json": lambda data: self.v2_json({"data": [_b64(data)]}),
            "v2 binary": self.v2_binary,
            "grpc": lambda data: self.rpc(_objects(data)),
            "predictions": lambda data: self.predictions(data, "application/octet-stream"),
        }

    def post(self, path: str, **request: Any) -> Came:
        """To one of the gateway's own routes."""
        return self._came(self._gateway.post(path, **request))

    def predictions(self, content: bytes, kind: str) -> Came:
        """To TorchServe itself."""
        return self._came(
            self._torchserve.post("/predictions/slicewise", content=content, headers={"content-type": kind})
        )

    def v1(self, body: Any, verb: str = "predict") -> Came:
        """A V1 body; the first instance's error counts as the answer's, as it fails alone."""
        response = self._gateway.post(f"/v1/models/slicewise:{verb}", json=body)
        if response.status_code != httpx.codes.OK:
            return self._came(response)
        first = response.json()["predictions"][0]
        first = first.get("predictions", [first])[0]
        return Came(400 if "error" in first else 200, response.text, first.get("tumor_probability"))

    def v2_json(self, fields: dict[str, Any], **body: Any) -> Came:
        """A V2 request with one tensor, by default the file of ``image_bytes``."""
        entry = {"name": "image_bytes", "datatype": "BYTES", "shape": [1]} | fields
        return self._came(self._gateway.post("/v2/models/slicewise/infer", json={"inputs": [entry]} | body))

    def v2_binary(self, data: bytes) -> Came:
        """A file as binary tensor."""
        body, length = v2.write(v2.Message({"image_bytes": _objects(data)}), "inputs", binary=True)
        headers = {v2.LENGTH_HEADER: str(length)}
        response = self._gateway.post("/v2/models/slicewise/infer", content=body, headers=headers)
        if response.status_code != httpx.codes.OK:
            return self._came(response)
        answer = v2.parse(response.content, response.headers[v2.LENGTH_HEADER], "outputs")
        return Came(200, "", float(answer.tensors["tumor_probability"][0]))

    def rpc(self, array: np.ndarray, name: str = "image_bytes", **fields: Any) -> Came:
        """A tensor by gRPC."""
        tensor = {"datatype": v2.datatype_of(array), "shape": list(array.shape)} | fields
        request = messages.ModelInferRequest(model_name="slicewise", raw_input_contents=[v2.pack(array)])
        request.inputs.add(name=name, **tensor)
        return self.rpc_message(request)

    def rpc_message(self, request: Any) -> Came:
        """A gRPC request as it is."""
        try:
            answer = stubs.GRPCInferenceServiceStub(self._channel).ModelInfer(request, timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            return Came(GRPC_AS_HTTP.get(error.code(), 500), f"{error.code().name}: {error.details()}")
        names = [output.name for output in answer.outputs]
        raw = answer.raw_output_contents[names.index("tumor_probability")]
        return Came(200, "", float(np.frombuffer(raw, np.float32)[0]))

    @staticmethod
    def _came(response: httpx.Response) -> Came:
        probability = None
        if response.status_code == httpx.codes.OK and response.headers["content-type"].startswith("application/json"):
            answer = json.loads(response.text)
            first = answer.get("predictions", [answer])[0]
            probability = first.get("tumor_probability")
            if "outputs" in first:
                probability = first["outputs"][0]["data"][0]
        return Came(response.status_code, response.text, probability)


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _objects(data: bytes) -> np.ndarray:
    array = np.empty(1, dtype=np.object_)
    array[0] = data
    return array
