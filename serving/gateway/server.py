"""The gateway process: KServe's REST and gRPC servers, bound where we say and stopped when we say."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc.aio  # type: ignore[import-untyped]
from fastapi import FastAPI

from serving.gateway.failures import add_handlers
from serving.gateway.grpc_service import VersionedServicer
from serving.gateway.limits import BodyLimit
from serving.gateway.metrics import Measured
from serving.gateway.model import SliceWiseModel
from serving.gateway.rest.router import add_routes
from serving.gateway.sdk import (
    DataPlane,
    ExceptionToStatusInterceptor,
    ModelServer,
    RESTServer,
    add_GRPCInferenceServiceServicer_to_server,
)
from serving.gateway.version_choice import VersionChoice
from serving.ports import LOOPBACK
from serving.ui.runs import RunFolder
from slicewise.errors import PortBusyError, ServerError

GRACE_S = 5
GRPC_THREADS = 4
WATCH_S = 0.5

log = logging.getLogger(__name__)


class _Rest(RESTServer):  # type: ignore[misc]
    """KServe's REST server with our routes, limits and errors, on an address of our choice."""

    def __init__(
        self, host: str, model: SliceWiseModel, max_request_mb: int, ui_runs: RunFolder | None, **settings: Any
    ) -> None:
        super().__init__("kserve.model_server:app", **settings)
        self.config.host = host
        self.config.server_header = False
        # A line for each request costs time, and its address may hold what opens a job; the metrics count them.
        logging.getLogger("uvicorn.access").propagate = False
        self._model = model
        self._max_request_mb = max_request_mb
        self._ui_runs = ui_runs

    @property
    def started(self) -> bool:
        return bool(self._server.started)

    def stop(self) -> None:
        self._server.should_exit = True

    def _register_endpoints(self, application: FastAPI) -> None:
        add_routes(application, self._model, self._max_request_mb, self._ui_runs)
        super()._register_endpoints(application)

    def _add_middlewares(self, application: FastAPI) -> None:
        # The last one added comes first: measure, read the body, choose the version.
        application.add_middleware(VersionChoice, backend=self._model.backend)
        application.add_middleware(BodyLimit, max_request_mb=self._max_request_mb)
        application.add_middleware(Measured)

    def _add_exception_handlers(self, application: FastAPI) -> None:
        add_handlers(application)


def _new_loop() -> asyncio.AbstractEventLoop:
    """A loop of uvloop where it is installed: uvicorn would choose so too, but starts in a running one."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        return asyncio.new_event_loop()
    return new_event_loop()


class _TruthfulDataPlane(DataPlane):  # type: ignore[misc]
    """The SDK's, whose readiness would be True while the backend is down."""

    def __init__(self, model: SliceWiseModel, registry: Any) -> None:
        super().__init__(model_registry=registry)
        self._model = model

    async def ready(self) -> bool:
        return await self._model.healthy()

    async def get_model(self, name: str) -> Any:
        """Without the SDK's health check: a request's own answer tells, and of the version that it is for."""
        return self.get_model_from_registry(name)

    async def model_metadata(self, model_name: str) -> dict[str, Any]:
        """The SDK's, with the versions that there are."""
        described = await self._model.backend.describe()
        metadata: dict[str, Any] = await super().model_metadata(model_name)
        return metadata | {"versions": described["versions"]["served"]}


class GatewayServer(ModelServer):  # type: ignore[misc]
    """KServe's ModelServer; ``start`` returns when the process is told to stop.

    Args:
        model: What to serve.
        http_port: REST, V1 and V2.
        grpc_port: V2 over gRPC.
        host: Address of both.
        max_request_mb: Largest body or message.
        alive: Asked every moment; the gateway stops when it says no.
        on_ready: Awaited once the ports are open.
        ui_runs: What the web page may show of runs; None serves no such page.
        background: Runs as long as the servers do, and is cancelled before they stop.
    """

    def __init__(
        self,
        model: SliceWiseModel,
        http_port: int,
        grpc_port: int,
        host: str = LOOPBACK,
        max_request_mb: int = 256,
        alive: Callable[[], bool] = lambda: True,
        on_ready: Callable[[], Awaitable[None]] | None = None,
        background: Callable[[], Coroutine[Any, Any, None]] | None = None,
        ui_runs: RunFolder | None = None,
    ) -> None:
        super().__init__(http_port=http_port, grpc_port=grpc_port, enable_latency_logging=False, grace_period=GRACE_S)
        self.dataplane = _TruthfulDataPlane(model, self.registered_models)
        self._host = host
        self._model = model
        self._max_request_mb = max_request_mb
        self._alive = alive
        self._on_ready = on_ready
        self._background = background
        self._ui_runs = ui_runs

    def start(self, models: list[Any] | None = None) -> None:
        """Serve until SIGTERM, SIGINT, or until ``alive`` says no.

        Raises:
            ServerError: A server could not start, or what it depends on ended.
        """
        self._register_and_check_atleast_one_model_is_ready(models or [self._model])
        with asyncio.Runner(loop_factory=_new_loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self.setup_event_loop()
        rest = _Rest(
            self._host,
            self._model,
            self._max_request_mb,
            self._ui_runs,
            data_plane=self.dataplane,
            model_repository_extension=self.model_repository_extension,
            http_port=self.http_port,
            grace_period=GRACE_S,
        )
        rpc = await self._start_grpc()
        beside = [] if self._background is None else [asyncio.create_task(self._background())]
        watching = asyncio.create_task(self._watch(rest))
        try:
            await rest.start()
        finally:
            await rpc.stop(GRACE_S)
            await self._model.close()
            for task in (*beside, watching):
                task.cancel()
            for task in (*beside, watching):
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    async def _watch(self, rest: _Rest) -> None:
        """Announce readiness, then stop the server when what it needs has gone."""
        announced = False
        try:
            while True:
                if not self._alive():
                    raise ServerError("the model server ended", "see its log")
                if rest.started and not announced and self._on_ready is not None:
                    await self._on_ready()
                announced = announced or rest.started
                await asyncio.sleep(WATCH_S if announced else WATCH_S / 10)
        finally:
            rest.stop()

    async def _start_grpc(self) -> grpc.aio.Server:
        limit = self._max_request_mb << 20
        server = grpc.aio.server(
            ThreadPoolExecutor(max_workers=GRPC_THREADS),
            interceptors=(ExceptionToStatusInterceptor(),),
            options=[
                ("grpc.max_receive_message_length", limit),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),
            ],
        )
        servicer = VersionedServicer(self._model, self.dataplane, self.model_repository_extension)
        add_GRPCInferenceServiceServicer_to_server(servicer, server)
        try:
            server.add_insecure_port(f"{self._host}:{self.grpc_port}")
        except RuntimeError as error:
            raise PortBusyError(
                f"port {self.grpc_port} (gRPC) is in use", "choose another with --grpc-port N"
            ) from error
        await server.start()
        return server
