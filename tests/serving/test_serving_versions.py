"""Versions side by side, swapped under load, drained, refused and rolled back; and the files behind them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
import typer
from numpy.typing import NDArray
from typer.testing import CliRunner

from serving.commands import register
from serving.gateway.backend import Backend
from serving.gateway.versions import VersionTable
from serving.local import start_detached, stop_stack
from serving.state import StackState
from serving.status import UnknownVersionError
from serving.versions.folder import CURRENT, add_version, is_models_folder, read_current, use_version, version_numbers
from serving.versions.watch import FolderWatcher
from slicewise.config import ModelConfig, ServeConfig, SliceConfig
from slicewise.errors import BundleError, ServerError, UsageError
from slicewise.inference.bundle import META, BundleMeta, write_bundle
from slicewise.model.network import MultiTaskUNet

Encode = Callable[..., bytes]
CONFIG = ServeConfig(backend="inprocess")
START_S = 300.0
WAIT_S = 60.0


def make_bundle(folder: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    network = MultiTaskUNet(4, ModelConfig())
    meta = BundleMeta(architecture=ModelConfig(), preprocessing=SliceConfig())
    return write_bundle(folder, network.state_dict(), meta).folder


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("bundles")
    return [make_bundle(folder / str(seed), seed) for seed in (1, 2)]


@pytest.fixture(scope="module")
def models(bundles: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    assert add_version(folder, bundles[0]) == 1
    use_version(folder, 1)
    return folder


@pytest.fixture(scope="module")
def served(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackState]:
    state = start_detached(models, None, CONFIG, tmp_path_factory.mktemp("work"), os.getpid(), START_S)
    yield state
    stop_stack(state)


@pytest.fixture
def client(served: StackState) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.gateway_url, timeout=60, trust_env=False) as client:
        yield client


def wait_for(condition: Callable[[], bool], what: str) -> None:
    async def waiting() -> None:
        async with asyncio.timeout(WAIT_S):
            while not condition():
                await asyncio.sleep(0.05)

    try:
        asyncio.run(waiting())
    except TimeoutError:
        pytest.fail(what)


def told(client: httpx.Client) -> dict[str, Any]:
    versions: dict[str, Any] = client.get("/model/info").json()["versions"]
    return versions


def test_a_version_lives_is_swapped_rolled_back_and_drained(
    client: httpx.Client,
    models: Path,
    bundles: list[Path],
    served: StackState,
    head: NDArray[np.uint8],
    encoded: Encode,
) -> None:
    png = encoded(head)
    body = {"inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 1, 8, 8], "data": list(range(64))}]}
    body |= {"parameters": {"tasks": "classify"}}

    def ask(path: str, **options: Any) -> httpx.Response:
        return client.post(path, json=body, **options)

    plain = "/v2/models/slicewise/infer"
    assert ask(plain).json()["model_version"] == "1"
    assert ask("/v2/models/slicewise/versions/1/infer").json()["model_version"] == "1"
    missing = ask("/v2/models/slicewise/versions/2/infer")
    assert missing.status_code == 404
    assert "use one of: 1" in missing.json()["cure"]
    assert client.get("/v2/models/slicewise/versions/2/ready").status_code == 404
    assert client.get("/v2/models/slicewise").json()["versions"] == ["1"]

    # Load on the default for the whole of what follows: no request may fail.
    failed: list[str] = []
    seen: list[str] = []
    finished = threading.Event()

    def load() -> None:
        with httpx.Client(base_url=served.gateway_url, timeout=60, trust_env=False) as own:
            while not finished.is_set():
                response = own.post("/classify", content=png, headers={"content-type": "image/png"})
                if response.status_code != 200:
                    failed.append(response.text)
                else:
                    seen.append(response.json()["model"]["version"])

    callers = [threading.Thread(target=load) for _ in range(3)]
    for caller in callers:
        caller.start()
    try:
        assert add_version(models, bundles[1]) == 2
        wait_for(lambda: told(client)["served"] == ["1", "2"], "version 2 was not served")
        assert ask(plain).json()["model_version"] == "1"
        for response in (
            ask("/v2/models/slicewise/versions/2/infer"),
            ask(plain, params={"version": "2"}),
            ask(plain, headers={"x-model-version": "2"}),
        ):
            assert response.json()["model_version"] == "2"
        assert client.get("/v2/models/slicewise/versions/2/ready").status_code == 200
        v1 = {"instances": [{"image": np.arange(64).reshape(8, 8).tolist()}], "parameters": {"tasks": "classify"}}
        first, second = (
            client.post("/v1/models/slicewise:predict", json=v1, params=query).json()["predictions"][0]
            for query in ({}, {"version": "2"})
        )
        assert first["tumor_probability"] != second["tumor_probability"]

        use_version(models, 2)
        wait_for(lambda: told(client)["default"] == "2", "the default was not swapped")
        assert ask(plain).json()["model_version"] == "2"
        use_version(models, 1)
        wait_for(lambda: told(client)["default"] == "1", "the default was not rolled back")
        assert ask(plain).json()["model_version"] == "1"

        shutil.copytree(bundles[1], models / "3")
        (models / "3" / META).write_text("{}")
        wait_for(lambda: "3" in told(client)["failed"], "the bad version was not told")
        assert str(models) not in json.dumps(told(client))
        shutil.rmtree(models / "2")
        wait_for(lambda: told(client)["served"] == ["1"], "version 2 was not drained")
        before = len(seen)
        wait_for(lambda: len(seen) > before, "the load stopped")
    finally:
        finished.set()
        for caller in callers:
            caller.join()
    assert failed == []
    assert set(seen) == {"1", "2"}
    assert seen[-1] == "1"


def test_versions_over_grpc(served: StackState) -> None:
    import grpc

    from serving.gateway.sdk import messages, stubs

    def request(version: str) -> Any:
        message = messages.ModelInferRequest(model_name="slicewise", model_version=version)
        message.inputs.add(name="image", datatype="FP32", shape=[1, 1, 8, 8])
        message.raw_input_contents.append(np.arange(64, dtype=np.float32).tobytes())
        return message

    with grpc.insecure_channel(f"127.0.0.1:{served.grpc_port}") as channel:
        stub = stubs.GRPCInferenceServiceStub(channel)
        assert stub.ServerLive(messages.ServerLiveRequest(), timeout=20).live
        assert stub.ServerReady(messages.ServerReadyRequest(), timeout=20).ready
        assert stub.ModelInfer(request(""), timeout=20).model_version == "1"
        assert stub.ModelInfer(request("1"), timeout=20).model_version == "1"
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelInfer(request("9"), timeout=20)
        ready = messages.ModelReadyRequest
        assert stub.ModelReady(ready(name="slicewise", version="1"), timeout=20).ready
        assert not stub.ModelReady(ready(name="slicewise", version="9"), timeout=20).ready
        metadata = stub.ModelMetadata(messages.ModelMetadataRequest(name="slicewise"), timeout=20)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    assert "use one of: 1" in caught.value.details()
    assert list(metadata.versions) == ["1"]


def test_the_gateways_metrics_move(client: httpx.Client) -> None:
    assert client.post("/classify", content=b"x", headers={"content-type": "text/css"}).status_code == 415
    text = client.get("/metrics").text
    assert 'slicewise_requests_total{method="POST",route="/classify",status="415"}' in text
    assert 'slicewise_request_seconds_count{route="/classify"}' in text
    assert 'slicewise_slices_total{ModelName="slicewise"}' in text


class Slow:
    """A model server that answers when it is told to."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.closed = False

    async def forward(self, *_: Any) -> str:
        await self.go.wait()
        return "answered"

    infer = healthy = forward

    async def close(self) -> None:
        self.closed = True


def test_a_removed_version_ends_what_it_began() -> None:
    async def run() -> None:
        table, slow = VersionTable(), Slow()
        backend: Backend = slow  # type: ignore[assignment]
        table.put("1", backend)
        table.default = "1"
        asked = asyncio.create_task(table.forward(b"", {}))
        await asyncio.sleep(0)
        removing = asyncio.create_task(table.remove("1", 60))
        await asyncio.sleep(0)
        assert not slow.closed
        assert table.served == []
        with pytest.raises(UnknownVersionError):
            async with table.lease("1"):
                pass
        slow.go.set()
        assert await asked == "answered"
        await removing
        assert slow.closed

    asyncio.run(run())


def test_adding_and_using_are_whole_or_nothing(bundles: list[Path], tmp_path: Path) -> None:
    models = tmp_path / "models"
    damaged = tmp_path / "damaged"
    shutil.copytree(bundles[0], damaged)
    (damaged / "model.safetensors").write_bytes(b"")
    with pytest.raises(BundleError):
        add_version(models, damaged)
    assert not models.exists()
    assert [add_version(models, bundle) for bundle in bundles] == [1, 2]
    shutil.copytree(damaged, models / "7")
    assert add_version(models, bundles[0]) == 8
    assert version_numbers(models) == (1, 2, 7, 8)
    for number in (3, 7):
        with pytest.raises(UsageError if number == 3 else BundleError):
            use_version(models, number)
    assert read_current(models) is None
    use_version(models, 2)
    assert read_current(models) == 2
    assert sorted(path.name for path in models.iterdir()) == ["1", "2", "7", "8", "current"]
    assert is_models_folder(models)
    assert not is_models_folder(bundles[0])


def test_the_verb(bundles: list[Path], tmp_path: Path) -> None:
    app = typer.Typer()
    app.callback()(lambda: None)
    register(app)

    def run(*words: str) -> Any:
        outcome = CliRunner().invoke(app, ["versions", *words, "--json"], catch_exceptions=False)
        return json.loads(outcome.stdout)

    models = str(tmp_path / "models")
    assert [run("add", models, str(bundle))["version"] for bundle in bundles] == [1, 2]
    assert run(models)["default"] == 2
    assert run("use", models, "1")["default"] == 1
    listed = run(models)
    assert listed["default"] == 1
    assert [row["version"] for row in listed["versions"]] == [1, 2]
    assert listed["versions"][0]["digest"] != listed["versions"][1]["digest"]
    with pytest.raises(UsageError, match="is not a version"):
        run("use", models, "one")
    with pytest.raises(UsageError, match="not understood"):
        run("use", models)


def test_a_folder_without_a_good_version_says_why(bundles: list[Path], tmp_path: Path) -> None:
    models = tmp_path / "models"
    add_version(models, bundles[0])
    (models / "1" / META).write_text("{}")

    async def run() -> None:
        watcher = FolderWatcher(models, CONFIG, tmp_path / "work", VersionTable(), poll_s=0.05)
        following = asyncio.create_task(watcher.run())
        try:
            with pytest.raises(ServerError, match=r"nothing can be served: version 1: .*bundle\.json"):
                await asyncio.wait_for(watcher.wait_served(), WAIT_S)
            (models / CURRENT).write_text("7\n")
            with pytest.raises(ServerError, match="'current' names version 7"):
                await asyncio.wait_for(watcher.wait_served(), WAIT_S)
            # A file that changes makes the version worth another try.
            (models / CURRENT).unlink()
            shutil.copy(bundles[0] / META, models / "1" / META)
            async with asyncio.timeout(WAIT_S):
                while watcher.table.default != "1":
                    await asyncio.sleep(0.05)
        finally:
            following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await following

    asyncio.run(run())
