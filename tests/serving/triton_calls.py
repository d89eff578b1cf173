"""Triton's gRPC client in a process of its own: its messages and those of KServe's SDK have the same names.

Usage: ``triton_calls.py HOST:PORT FILE.npz``, whose arrays are ``image`` and ``png``; tells its findings as JSON.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

NAME = "slicewise"


def given(name: str, array: np.ndarray, datatype: str) -> InferInput:
    """An array as the client's input."""
    item = InferInput(name, list(array.shape), datatype)
    item.set_data_from_numpy(array)
    return item


def status_of(client: InferenceServerClient, item: InferInput, **asked: Any) -> tuple[str, str]:
    """The status and the words of a request that has to fail."""
    try:
        client.infer(**{"model_name": NAME, "inputs": [item]} | asked)
    except InferenceServerException as error:
        return error.status(), error.message()
    raise AssertionError(f"{asked} was answered")


def calls(client: InferenceServerClient, image: np.ndarray, png: bytes) -> dict[str, Any]:
    """All calls, and what came."""
    metadata = client.get_model_metadata(NAME)
    numbers = given("image", image, "FP32")
    outputs = [InferRequestedOutput("mask"), InferRequestedOutput("tumor_probability")]
    answer = client.infer(NAME, [numbers], outputs=outputs, request_id="q-1", parameters={"threshold": "0.25"})
    by_file = client.infer(NAME, [given("image_bytes", np.array([png], np.object_), "BYTES")], model_version="3")
    return {
        "health": [client.is_server_live(), client.is_server_ready(), client.is_model_ready(NAME)],
        "other versions are ready": client.is_model_ready(NAME, "77"),
        "server": client.get_server_metadata().name,
        "metadata": [metadata.name, list(metadata.versions), [item.name for item in metadata.inputs]],
        "outputs": [output.name for output in answer.get_response().outputs],
        "id": answer.get_response().id,
        "version": answer.get_response().model_version,
        "threshold": answer.get_response().parameters["threshold"].string_param,
        "probability": float(answer.as_numpy("tumor_probability")[0]),
        "mask": answer.as_numpy("mask")[0].tolist(),
        "by file": float(by_file.as_numpy("tumor_probability")[0]),
        "wrong name": status_of(client, given("picture", image, "FP32")),
        "wrong model": status_of(client, numbers, model_name="other"),
        "wrong version": status_of(client, numbers, model_version="77"),
    }


if __name__ == "__main__":
    with np.load(sys.argv[2]) as arrays, InferenceServerClient(sys.argv[1]) as client:
        print(json.dumps(calls(client, arrays["image"], arrays["png"].tobytes())))  # noqa: T201
