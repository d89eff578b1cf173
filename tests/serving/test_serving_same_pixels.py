"""The network gets the same bytes through the gateway as the store of training slices holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastapi import FastAPI
from numpy.typing import NDArray
from starlette.testclient import TestClient
from uploaded_study import UploadedStudy, make_upload

from serving.codecs import v2
from serving.gateway.failures import add_handlers
from serving.gateway.inprocess import InProcessBackend
from serving.gateway.model import SliceWiseModel
from serving.gateway.rest.router import add_routes
from serving.torchserve.jobs import Served
from slicewise.config import ServeConfig
from slicewise.inference.predictor import Predictor
from slicewise.slices.transform import prepare_slice
from slicewise.studies.orientation import display_spacing, to_display

Encode = Callable[..., bytes]


@pytest.fixture(scope="module")
def gateway(predictor: Predictor) -> Iterator[TestClient]:
    """The gateway's own routes over the Predictor in this process."""
    backend = InProcessBackend(predictor, Served(predictor.bundle, "slicewise"), ServeConfig())
    app = FastAPI()
    add_handlers(app)
    add_routes(app, SliceWiseModel("slicewise", backend), 16)
    with TestClient(app) as client:
        yield client
        assert client.portal is not None
        client.portal.call(backend.close)


@pytest.fixture
def fed(predictor: Predictor) -> Iterator[list[NDArray[np.float32]]]:
    """Every slice that enters the network from now on."""
    seen: list[NDArray[np.float32]] = []

    def note(_: Any, inputs: tuple[torch.Tensor]) -> None:
        seen.extend(inputs[0].clone().contiguous().numpy())

    hook = predictor.network.encoder.register_forward_pre_hook(note)
    yield seen
    hook.remove()


@pytest.fixture(scope="module")
def upload(tmp_path_factory: pytest.TempPathFactory) -> UploadedStudy:
    return make_upload(tmp_path_factory.mktemp("upload"))


@pytest.mark.parametrize("path", ["/classify", "/segment", "/predict_multitask"])
@pytest.mark.parametrize("how", ["form", "json"])
def test_a_png_by_rest(
    how: str,
    path: str,
    gateway: TestClient,
    predictor: Predictor,
    head: NDArray[np.uint8],
    encoded: Encode,
    fed: list[NDArray[np.float32]],
) -> None:
    sent: dict[str, Any] = {
        "form": {"files": {"file": encoded(head)}, "data": {"pixel_mm": "0.5,1"}},
        "json": {"json": {"image": head.tolist(), "pixel_mm": "0.5,1"}},
    }[how]
    assert gateway.post(path, **sent).status_code == 200
    config = predictor.meta.preprocessing
    prepared = prepare_slice(head[np.newaxis], ("unknown",), config, (0.5, 1.0))
    assert [item.tobytes() for item in fed] == [prepared.image.astype(np.float32).tobytes()]


def test_an_npy_by_v2(
    gateway: TestClient,
    predictor: Predictor,
    head: NDArray[np.uint8],
    encoded: Encode,
    fed: list[NDArray[np.float32]],
) -> None:
    raw = head.astype(np.int16) * 3
    files = np.empty(1, dtype=np.object_)
    files[0] = encoded(raw, "npy")
    message = v2.Message({"image_bytes": files}, {"modalities": "t1", "tasks": "classify"})
    body, length = v2.write(message, "inputs", binary=True)
    response = gateway.post("/v2/models/slicewise/infer", content=body, headers={v2.LENGTH_HEADER: str(length)})
    assert response.status_code == 200
    prepared = prepare_slice(raw[np.newaxis], ("t1",), predictor.meta.preprocessing)
    assert [item.tobytes() for item in fed] == [prepared.image.astype(np.float32).tobytes()]


def test_nifti_by_analyze_stack(
    gateway: TestClient, predictor: Predictor, upload: UploadedStudy, fed: list[NDArray[np.float32]]
) -> None:
    paths = {name: Path(path) for name, path in upload.nifti.items()}
    files = {name: ("scan.nii.gz", path.read_bytes()) for name, path in paths.items()}
    response = gateway.post("/patient/analyze_stack", files=files)
    assert response.status_code == 200, response.text
    config, affine = predictor.meta.preprocessing, upload.phantom.affine
    names = tuple(name for name in config.modalities if name in files)
    channels = np.stack([to_display(upload.phantom.images[name], affine) for name in names])
    step = display_spacing(affine)
    prepared = []
    for index, entry in enumerate(response.json()["slices"]):
        if entry["tumor_probability"] is not None:
            item = prepare_slice(channels[:, index], names, config, (float(step[1]), float(step[2])))
            prepared.append(item.image.astype(np.float32).tobytes())
    assert prepared
    # The slices of a study travel in several requests, which may change places.
    assert sorted(item.tobytes() for item in fed) == sorted(prepared)
