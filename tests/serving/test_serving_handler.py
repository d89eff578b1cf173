"""The TorchServe handler on TorchServe's own context, and TorchServe's settings."""

from __future__ import annotations

import base64
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import torch
import yaml
from numpy.typing import NDArray
from ts.context import Context, RequestProcessor

from serving.codecs import v2
from serving.torchserve.archive import build_archive
from serving.torchserve.handler import SliceWiseHandler
from serving.torchserve.properties import ServerPorts, server_properties
from slicewise.config import ServeConfig
from slicewise.inference.predictor import PredictOptions, Predictor, SliceInput
from slicewise.slices.transform import prepare_slice

Encode = Callable[..., bytes]
Item = tuple[Any, dict[str, str]]


@pytest.fixture(scope="module")
def served(bundle_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[SliceWiseHandler, Context]:
    """The handler, loaded from an unpacked archive as TorchServe does it."""
    folder = tmp_path_factory.mktemp("mar")
    archive = build_archive(bundle_dir, folder / "store", ServeConfig(workers=2))
    with zipfile.ZipFile(archive) as content:
        content.extractall(folder / "model")
    manifest = orjson.loads((folder / "model" / "MAR-INF" / "MANIFEST.json").read_bytes())
    settings = yaml.safe_load((folder / "model" / manifest["model"]["configFile"]).read_text())
    context = Context("slicewise", str(folder / "model"), manifest, 8, None, "0", model_yaml_config=settings)
    handler = SliceWiseHandler()
    handler.initialize(context)
    return handler, context


def run(served: tuple[SliceWiseHandler, Context], items: list[Item]) -> list[tuple[int, bytes, dict[str, str]]]:
    handler, context = served
    context.request_processor = [RequestProcessor(headers) for _, headers in items]
    bodies = handler.handle([{"body": body} for body, _ in items], context)
    return [
        (context.get_response_status(index)[0], body, context.get_response_headers(index))
        for index, body in enumerate(bodies)
    ]


def binary(tensors: dict[str, Any], **parameters: Any) -> Item:
    body, length = v2.write(v2.Message(tensors, parameters), "inputs", binary=True)
    return bytearray(body), {v2.LENGTH_HEADER: str(length)}


def fed(served: tuple[SliceWiseHandler, Context], items: list[Item]) -> NDArray[np.float32]:
    """What really enters the network while the batch is handled."""
    seen: list[torch.Tensor] = []
    network = served[0].predictor.network
    hook = network.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    try:
        assert all(status == 200 for status, _, _ in run(served, items))
    finally:
        hook.remove()
    return torch.cat(seen).contiguous().numpy()


def test_the_network_is_fed_what_prepare_slice_makes(
    served: tuple[SliceWiseHandler, Context], head: NDArray[np.uint8], encoded: Encode
) -> None:
    config = served[0].predictor.meta.preprocessing
    png, raw = encoded(head), head.astype(np.int16) * 3
    four = np.stack([raw, raw[::-1], raw[:, ::-1], raw // 2])
    b64 = base64.b64encode(encoded(four, "npy")).decode()
    items = [
        (png, {"content-type": "image/png"}),
        (encoded(raw, "npy"), {"x-slicewise-params": '{"modalities": "t1"}'}),
        ({"instances": [{"image": {"b64": b64}}]}, {}),
        binary({"image": four[np.newaxis].astype(np.float32)}),
        binary({"image": raw[np.newaxis, np.newaxis].astype(np.float32)}, modalities="t2", pixel_mm="0.5,1"),
    ]
    direct = [
        prepare_slice(head[np.newaxis], ("unknown",), config),
        prepare_slice(raw[np.newaxis], ("t1",), config),
        prepare_slice(four, config.modalities, config),
        prepare_slice(four, config.modalities, config),
        prepare_slice(raw[np.newaxis], ("t2",), config, (0.5, 1.0)),
    ]
    expected = np.stack([item.image for item in direct]).astype(np.float32)
    assert fed(served, items).tobytes() == expected.tobytes()


def test_requests_of_all_kinds_share_a_batch_and_a_bad_one_fails_alone(
    served: tuple[SliceWiseHandler, Context], head: NDArray[np.uint8], encoded: Encode, predictor: Predictor
) -> None:
    png = encoded(head)
    image = head[np.newaxis, np.newaxis].astype(np.float32)
    items: list[Item] = [
        (png, {}),
        (png[:300], {}),
        (orjson.dumps({"instances": [{"image": head.tolist()}, {"image": None}]}), {}),
        binary({"image": np.concatenate([image, image * np.nan])}, tasks="classify"),
        ({"inputs": []}, {}),
        (b"<html>", {}),
        ({"inputs": [{"name": "image", "datatype": "FP32", "shape": list(image.shape), "data": image.tolist()}]}, {}),
        ({"describe": True}, {}),
    ]
    replies = run(served, items)
    assert [status for status, _, _ in replies] == [200, 400, 200, 200, 400, 415, 200, 200]
    expected = predictor.predict([SliceInput(head[np.newaxis], ("unknown",))], PredictOptions())[0]
    probability = pytest.approx(expected.tumor_probability, abs=1e-5)  # type: ignore[union-attr]
    assert orjson.loads(replies[0][1])["tumor_probability"] == probability
    predictions = orjson.loads(replies[2][1])["predictions"]
    assert predictions[0]["tumor_probability"] == probability
    assert predictions[1]["error"]["message"].startswith("instances[1].image")
    answer = v2.parse(replies[3][1], replies[3][2][v2.LENGTH_HEADER], "outputs")
    assert answer.tensors["tumor_probability"][0] == probability
    assert np.isnan(answer.tensors["tumor_probability"][1])
    assert answer.tensors["error"][0] == b""
    assert b"NaN or infinite" in answer.tensors["error"][1]
    assert orjson.loads(replies[6][1])["outputs"][0]["data"][0] == probability


def test_outputs_on_demand(served: tuple[SliceWiseHandler, Context], head: NDArray[np.uint8]) -> None:
    image = head[np.newaxis, np.newaxis].astype(np.float32)
    message = v2.Message({"image": image}, {"tasks": "segment,explain,uncertainty", "n_mc_samples": "2"})
    body, length = v2.write(message, "inputs", binary=True)
    _, content, headers = run(served, [(body, {v2.LENGTH_HEADER: str(length)})])[0]
    tensors = v2.parse(content, headers[v2.LENGTH_HEADER], "outputs").tensors
    assert {name: array.shape for name, array in tensors.items()} == {
        "tumor_probability": (1,),
        "tumor_label": (1,),
        "mask": (1, 3, *head.shape),
        "gradcam": (1, *head.shape),
        "uncertainty": (1, *head.shape),
        "epistemic": (1, *head.shape),
        "aleatoric": (1, *head.shape),
        "uncertainty_scores": (1,),
        "error": (1,),
    }
    wanted = v2.Message({"image": image}, {}, wanted=("region_probability",))
    body, length = v2.write(wanted, "inputs", binary=True)
    _, content, headers = run(served, [(body, {v2.LENGTH_HEADER: str(length)})])[0]
    picked = v2.parse(content, headers[v2.LENGTH_HEADER], "outputs").tensors
    assert list(picked) == ["region_probability"]
    np.testing.assert_array_equal(picked["region_probability"] >= 0.5, tensors["mask"].astype(bool))


def test_files_of_different_sizes_do_not_fit_one_mask(
    served: tuple[SliceWiseHandler, Context], head: NDArray[np.uint8], encoded: Encode
) -> None:
    files = np.empty(2, dtype=np.object_)
    files[:] = [encoded(head), encoded(head[:-5])]
    refused, fine = run(served, [binary({"image_bytes": files}), binary({"image_bytes": files}, tasks="classify")])
    assert refused[0] == 400
    assert "one request per size" in orjson.loads(refused[1])["error"]["cure"]
    assert fine[0] == 200


def test_server_properties_stay_on_loopback_and_state_the_limit(tmp_path: Path) -> None:
    text = server_properties(ServerPorts(1, 2, 3, 4, 5), tmp_path / "m.mar", ServeConfig(max_request_mb=64))
    values = dict(line.split("=", 1) for line in text.splitlines())
    addresses = [value for key, value in values.items() if key.endswith("_address")]
    assert len(addresses) == 5
    assert all("127.0.0.1" in value for value in addresses)
    assert int(values["max_request_size"]) >= 64 << 20
    assert values["enable_model_api"] == "false"
    assert values["install_py_dep_per_model"] == "false"
