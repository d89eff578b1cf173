"""The three ways to the model answer alike, refuse alike, and tell monitoring what they did."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx
import numpy as np
import orjson
import psutil
import pytest
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families

from serving.codecs import v2
from serving.gateway.inprocess import InProcessBackend
from serving.gateway.torchserve_grpc import GrpcBackend
from serving.gateway.torchserve_http import HttpBackend
from serving.gateway.wire_backend import WireBackend
from serving.ports import LOOPBACK, free_port
from serving.status import BackendError, BusyError, DeadlineError, UnknownVersionError, retry_headers
from serving.supervise import Supervisor
from serving.torchserve.archive import build_archive
from serving.torchserve.jobs import Served
from serving.torchserve.server import TorchServeProcess
from slicewise.config import ServeConfig
from slicewise.errors import InputError, SliceWiseError, TooLargeError
from slicewise.inference.predictor import Predictor

Encode = Callable[..., bytes]
Make = Callable[..., WireBackend]
KINDS = ("torchserve-http", "torchserve-grpc", "inprocess")
T = TypeVar("T")
LIMIT_MB = 4
CONFIG = ServeConfig(max_request_mb=LIMIT_MB)


@pytest.fixture(scope="module")
def torchserve(bundle_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TorchServeProcess]:
    work = tmp_path_factory.mktemp("torchserve")
    server = TorchServeProcess(build_archive(bundle_dir, work / "store", CONFIG), CONFIG, work)
    try:
        server.start()
        server.wait_ready()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def make(torchserve: TorchServeProcess, predictor: Predictor) -> Make:
    """A backend of a kind."""

    def made(kind: str, config: ServeConfig = CONFIG) -> WireBackend:
        if kind == "torchserve-http":
            return HttpBackend(torchserve.url, config)
        if kind == "torchserve-grpc":
            return GrpcBackend(torchserve.grpc_target, config)
        return InProcessBackend(predictor, Served(predictor.bundle, config.model_name), config)

    return made


def use(make: Make, kind: str, ask: Callable[[WireBackend], Awaitable[T]], config: ServeConfig = CONFIG) -> T:
    backend = make(kind, config)  # before there is an event loop, as the stack does it

    async def run() -> T:
        try:
            return await ask(backend)
        finally:
            await backend.close()

    return asyncio.run(run())


def message(answer: v2.Message) -> dict[str, Any]:
    """An answer without what differs between two runs."""
    parameters = {name: value for name, value in answer.parameters.items() if not name.endswith("_ms")}
    return {"parameters": parameters, "version": answer.model_version, "tensors": dict(answer.tensors)}


def test_the_three_backends_answer_alike(make: Make, head: NDArray[np.uint8], encoded: Encode) -> None:
    files = np.empty(3, dtype=np.object_)
    files[:] = [encoded(head), encoded(head)[:250], encoded(head[::-1])]
    everything = {"tasks": "classify,segment,explain"}
    requests: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"image_bytes": files}, everything),
        ({"image": head[np.newaxis, np.newaxis].astype(np.float32)}, {"modalities": "t1", "threshold": 0.0}),
        ({"image": head[np.newaxis, np.newaxis].astype(np.float32)}, {"conditional": True, "threshold": 1.0}),
    ]

    async def ask(backend: WireBackend) -> list[dict[str, Any]]:
        # One after the other: sums over batches of different sizes differ in their last bits.
        return [message(await backend.infer(*request)) for request in requests]

    first, *others = [use(make, kind, ask) for kind in KINDS]
    assert first[0]["tensors"]["mask"].shape == (3, 3, *head.shape)
    assert first[0]["tensors"]["error"][1]
    assert first[2]["parameters"]["decoded"] == "false"
    for other in others:
        for mine, theirs in zip(first, other, strict=True):
            assert theirs["parameters"] == mine["parameters"]
            assert theirs["version"] == mine["version"] == "3"
            assert list(theirs["tensors"]) == list(mine["tensors"])
            for name, tensor in mine["tensors"].items():
                if tensor.dtype == np.float32:
                    np.testing.assert_allclose(theirs["tensors"][name], tensor, atol=1e-4, equal_nan=True)
                else:
                    np.testing.assert_array_equal(theirs["tensors"][name], tensor)


@pytest.mark.parametrize("kind", KINDS)
def test_they_refuse_alike_and_say_why(kind: str, make: Make, head: NDArray[np.uint8]) -> None:
    async def ask(backend: WireBackend) -> list[SliceWiseError]:
        bodies: list[tuple[bytes, dict[str, str]]] = [
            (b'{"inputs": []}', {"content-type": "application/json"}),
            (b"<html>", {}),
            (b"\x1f\x8b" + bytes(50), {}),
        ]
        errors = []
        for body, headers in bodies:
            with pytest.raises(InputError) as caught:
                await backend.forward(body, headers)
            errors.append(caught.value)
        with pytest.raises(UnknownVersionError) as unknown:
            async with backend.lease("7"):
                pass
        async with backend.lease("3") as leased:
            assert leased is backend
        with pytest.raises(DeadlineError):
            await backend.forward(orjson.dumps({"instances": [{"image": head.tolist()}] * 60}), {}, 0.05)
        assert await backend.healthy()
        return [*errors, unknown.value]

    empty, html, gzip, unknown = use(make, kind, ask)
    assert "inputs must be a list" in empty.message
    assert "PNG, JPEG" in html.cure
    assert "gzip" in gzip.message
    assert unknown.cure == "use one of: 3"


@pytest.mark.parametrize("kind", KINDS)
def test_a_body_over_the_limit_names_it(kind: str, make: Make) -> None:
    async def ask(backend: WireBackend) -> str:
        with pytest.raises(TooLargeError) as caught:
            await backend.forward(bytes((LIMIT_MB + 2) << 20), {})
        return caught.value.message

    assert f"{LIMIT_MB} MB" in use(make, kind, ask)


@pytest.mark.parametrize("kind", KINDS)
def test_more_than_may_wait_is_refused_at_once(kind: str, make: Make, head: NDArray[np.uint8]) -> None:
    body = orjson.dumps({"instances": [{"image": head.tolist()}]})
    tight = ServeConfig(max_in_flight=1, max_waiting=2, max_request_mb=LIMIT_MB)

    async def ask(backend: WireBackend) -> list[Any]:
        return await asyncio.gather(*(backend.forward(body, {}) for _ in range(8)), return_exceptions=True)

    outcomes = use(make, kind, ask, tight)
    assert sum(isinstance(outcome, BusyError) for outcome in outcomes) == 5
    assert not any(isinstance(outcome, Exception) and not isinstance(outcome, BusyError) for outcome in outcomes)


@pytest.mark.parametrize("kind", ["torchserve-http", "torchserve-grpc"])
def test_a_server_that_is_not_there_is_told_after_a_few_tries(kind: str) -> None:
    nowhere = free_port()

    def absent(kind: str, config: ServeConfig) -> WireBackend:
        if kind == "torchserve-http":
            return HttpBackend(f"http://{LOOPBACK}:{nowhere}", config)
        return GrpcBackend(f"{LOOPBACK}:{nowhere}", config)

    async def ask(backend: WireBackend) -> None:
        with pytest.raises(BackendError) as caught:
            await backend.forward(b"{}", {})
        assert not isinstance(caught.value, BusyError | DeadlineError)
        assert not await backend.healthy()

    use(absent, kind, ask)


def scraped(url: str, prefix: str = "slicewise_") -> dict[str, float]:
    """Every sample by name and labels, without the labels that name the machine."""
    samples = {}
    for family in text_string_to_metric_families(httpx.get(url, timeout=10, trust_env=False).text):
        for sample in family.samples:
            labels = {name: value for name, value in sample.labels.items() if name in ("phase", "code", "statistic")}
            if sample.name.startswith(prefix):
                samples[" ".join([sample.name, *labels.values()])] = sample.value
    return samples


def test_torchserves_metrics_move(torchserve: TorchServeProcess, make: Make, head: NDArray[np.uint8]) -> None:
    assert torchserve.ports is not None
    url = f"http://{LOOPBACK}:{torchserve.ports.metrics}/metrics"
    images = np.stack([head[np.newaxis], np.zeros_like(head)[np.newaxis]]).astype(np.float32)

    async def ask(backend: WireBackend) -> None:
        await backend.infer({"image": images}, {"threshold": 0.0})
        with pytest.raises(InputError):
            await backend.forward(b"{", {})

    use(make, "torchserve-http", ask)
    before = scraped(url)
    use(make, "torchserve-http", ask)
    wanted = {"slicewise_slices_total": 1, "slicewise_tumour_slices_total": 1, "slicewise_batch_slices_count": 1}
    wanted |= {"slicewise_bad_items_total invalid_input": 2}
    wanted |= {f"slicewise_phase_seconds_count {phase}": 1 for phase in ("preprocess", "network", "postprocess")}

    async def moved() -> dict[str, float]:
        """TorchServe reads its workers' figures from their output, a moment after the answer."""
        async with asyncio.timeout(20):
            while True:
                after = scraped(url)
                if all(after.get(name, 0) >= before.get(name, 0) + by for name, by in wanted.items()):
                    return after
                await asyncio.sleep(0.05)

    after = asyncio.run(moved())
    assert after["slicewise_tumour_rate"] == 1.0
    inside = head[head > 0]
    assert after["slicewise_input_intensity mean"] == pytest.approx(float(inside.mean()), rel=0.05)
    assert after["slicewise_input_intensity p95"] == pytest.approx(float(np.percentile(inside, 95)), rel=0.05)


@pytest.mark.parametrize("kind", ["torchserve-http", "torchserve-grpc"])
def test_a_killed_worker_costs_no_request(
    kind: str, torchserve: TorchServeProcess, make: Make, head: NDArray[np.uint8]
) -> None:
    body = orjson.dumps({"instances": [{"image": head.tolist()}]})
    killed: list[int] = []

    async def ask(backend: WireBackend) -> list[Any]:
        await backend.forward(body, {})
        asked = [asyncio.create_task(backend.forward(body, {})) for _ in range(12)]
        await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        for process in psutil.Process(torchserve.pid).children(recursive=True):
            if "model_service_worker" in " ".join(process.cmdline()):
                killed.append(process.pid)
                process.kill()
        return [await answer for answer in asked]

    answers = use(make, kind, ask)
    assert killed
    assert len(answers) == 12
    assert all(b"tumor_probability" in answer.content for answer in answers)


def test_a_torchserve_that_is_killed_comes_back_at_its_address(
    torchserve: TorchServeProcess, make: Make, head: NDArray[np.uint8]
) -> None:
    """The last test here: the server ends with the supervisor's thread."""
    body = orjson.dumps({"instances": [{"image": head.tolist()}]})
    ports, first = torchserve.ports, torchserve.pid

    async def ask(backend: WireBackend) -> list[BackendError]:
        supervisor = Supervisor(torchserve)
        watching = asyncio.create_task(supervisor.run())
        psutil.Process(first).kill()
        refused = []
        try:
            async with asyncio.timeout(120):
                while True:
                    try:
                        answer = await backend.forward(body, {})
                        break
                    except BackendError as error:
                        refused.append(error)
            assert b"tumor_probability" in answer.content
            assert await backend.healthy()
            assert supervisor.hopeful()
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        return refused

    refused = use(make, "torchserve-http", ask)
    assert all(retry_headers(error) for error in refused)
    assert torchserve.ports == ports
    assert torchserve.pid != first
