"""The exchanges of the golden files: requests made by a fixed recipe, and answers in a form that can be compared."""

from __future__ import annotations

import base64
import binascii
import io
import json
import re
from typing import Any

import grpc
import httpx
import numpy as np
from google.protobuf.json_format import MessageToDict, ParseDict
from PIL import Image

from serving.codecs import v2
from serving.gateway.sdk import messages, stubs
from serving.state import StackState
from slicewise.config.download import PhantomConfig
from slicewise.studies.phantom import make_phantom

JSON = dict[str, Any]
# What differs between two runs of the same, or hangs on single pixels: times, ids, the weights' digest, small pieces.
VOLATILE = re.compile(r"(.+_ms|request_id|digest|model_digest|components)")
TOLERANCE = 0.02
EQUAL_PIXELS = 0.98
PIXELS = 500
V1, V2 = "/v1/models/slicewise", "/v2/models/slicewise/infer"


def phantom_png() -> bytes:
    """The middle slice ``[48, 40]`` of a phantom's FLAIR, as 8-bit PNG."""
    volume = make_phantom(0, PhantomConfig(shape=(40, 48, 20), spacing_mm=(2.0, 2.5, 5.0)), 3).images["flair"]
    plane = volume[:, :, 10].T
    buffer = io.BytesIO()
    Image.fromarray((plane / plane.max() * 255).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def requests() -> dict[str, JSON]:
    """Each golden file's request."""
    png = base64.b64encode(phantom_png()).decode()
    instance = {"instances": [{"image": {"b64": png}}]}
    file = {"name": "image_bytes", "datatype": "BYTES", "shape": [1]}
    wanted = [{"name": name} for name in ("tumor_probability", "tumor_label", "mask", "error")]
    v2_json = {"id": "golden", "inputs": [file | {"data": [png]}], "outputs": wanted}
    raw = base64.b64encode(len(phantom_png()).to_bytes(4, "little") + phantom_png()).decode()
    head = v2_json | {"inputs": [file | {"parameters": {"binary_data_size": len(base64.b64decode(raw))}}]}
    head |= {"parameters": {"binary_data_output": True}}
    message = {
        "modelName": "slicewise",
        "id": "golden",
        "inputs": [file],
        "outputs": wanted,
        "rawInputContents": [raw],
    }
    rest = {"image": png, "pixel_mm": 2.5}
    return {
        "v1": {"path": f"{V1}:predict", "json": instance},
        "v1_explain": {"path": f"{V1}:explain", "json": instance | {"parameters": {"explain_method": "gradcam"}}},
        "v2_json": {"path": V2, "json": v2_json},
        "v2_binary": {"path": V2, "json": head, "tensors": [raw]},
        "v2_error": {"path": V2, "json": {"inputs": [file | {"name": "picture", "data": [png]}]}},
        "grpc": {"message": message},
        "rest_classify": {"path": "/classify", "json": rest | {"threshold": 0.25}},
        "rest_segment": {"path": "/segment", "json": rest | {"mask_format": "npy"}},
        "rest_multitask": {"path": "/predict_multitask", "json": rest | {"conditional": False, "overlay": False}},
        "rest_error": {"path": "/classify", "json": {"image": png[: len(png) // 8 * 4]}},
    }


def exchange(request: JSON, stack: StackState) -> JSON:
    """Send a request as it stands in its file; the answer, with what is volatile masked."""
    if "message" in request:
        with grpc.insecure_channel(f"127.0.0.1:{stack.grpc_port}") as channel:
            sent = ParseDict(request["message"], messages.ModelInferRequest())
            answer = stubs.GRPCInferenceServiceStub(channel).ModelInfer(sent, timeout=60)
        # A map of protobuf has no order.
        return {"status": "OK", "message": masked(json.loads(json.dumps(MessageToDict(answer), sort_keys=True)))}
    head, headers = json.dumps(request["json"]).encode(), {"content-type": "application/json"}
    if "tensors" in request:
        headers = {v2.LENGTH_HEADER: str(len(head)), "content-type": v2.BINARY}
        head += b"".join(base64.b64decode(item) for item in request["tensors"])
    url = stack.gateway_url + request["path"]
    response = httpx.post(url, content=head, headers=headers, timeout=60, trust_env=False)
    told: JSON = {"status": response.status_code, "content-type": response.headers["content-type"]}
    if (length := response.headers.get(v2.LENGTH_HEADER)) is None:
        return told | {"json": masked(response.json())}
    answer, rest, tensors = json.loads(response.content[: int(length)]), response.content[int(length) :], []
    for output in answer["outputs"]:
        size = output["parameters"]["binary_data_size"]
        tensors.append(base64.b64encode(rest[:size]).decode())
        rest = rest[size:]
    assert not rest
    return told | {"json": masked(answer), "tensors": tensors}


def masked(value: Any, name: str = "") -> Any:
    """The value with ``"<type>"`` in place of what is volatile."""
    if VOLATILE.fullmatch(name):
        if isinstance(value, dict):
            return {key: f"<{type(item).__name__}>" for key, item in value.items()}
        return f"<{type(value).__name__}>"
    if isinstance(value, dict):
        return {key: masked(item, key) for key, item in value.items()}
    return [masked(item) for item in value] if isinstance(value, list) else value


def differences(golden: Any, now: Any, where: str = "answer") -> list[str]:
    """What differs: keys, their order, types and texts exactly, numbers and pixels within tolerance."""
    if type(golden) is not type(now):
        return [f"{where}: {type(golden).__name__} became {type(now).__name__}"]
    if isinstance(golden, dict):
        if list(golden) != list(now):
            return [f"{where}: fields {list(golden)} became {list(now)}"]
        return [text for key in golden for text in differences(golden[key], now[key], f"{where}.{key}")]
    if isinstance(golden, list) and len(golden) == len(now):
        if len(golden) > PIXELS and all(isinstance(item, int) for item in (*golden, *now)):
            return _unequal(np.array(golden), np.array(now), where)
        pairs = enumerate(zip(golden, now, strict=True))
        return [text for at, pair in pairs for text in differences(*pair, f"{where}[{at}]")]
    if isinstance(golden, float) or "_area_pixels" in where:
        same = abs(golden - now) <= TOLERANCE * max(1.0, abs(golden))
    else:
        same = golden == now or (isinstance(golden, str) and _alike(golden, now))
    return [] if same else [f"{where}: {str(golden)[:80]} became {str(now)[:80]}"]


def _unequal(golden: np.ndarray, now: np.ndarray, where: str) -> list[str]:
    share = float(np.mean(golden == now))
    return [] if share >= EQUAL_PIXELS else [f"{where}: only {share:.0%} of the pixels are equal"]


def _alike(golden: str, now: str) -> bool:
    """Two pictures or tensors in base64 that are as good as equal."""
    try:
        data = [base64.b64decode(text, validate=True) for text in (golden, now)]
        if all(item.startswith(b"\x89PNG") for item in data):
            first, second = (np.asarray(Image.open(io.BytesIO(item)), np.int16) for item in data)
            return first.shape == second.shape and bool(np.mean(np.abs(first - second) <= 5) >= EQUAL_PIXELS)
        if len(data[0]) != len(data[1]):
            return False
        if len(data[0]) == np.dtype(np.float32).itemsize:
            return bool(np.allclose(*(np.frombuffer(item, np.float32) for item in data), atol=TOLERANCE))
        first, second = (np.frombuffer(item, np.uint8) for item in data)
        return len(first) > PIXELS and bool(np.mean(first == second) >= EQUAL_PIXELS)
    except (binascii.Error, ValueError):
        return False
