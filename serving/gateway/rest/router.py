"""All of SliceWise's own routes on one application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi

from serving.gateway.model import SliceWiseModel
from serving.gateway.rest.batches import BatchRoutes
from serving.gateway.rest.info import InfoRoutes
from serving.gateway.rest.job_routes import JobRoutes
from serving.gateway.rest.jobs import JobStore
from serving.gateway.rest.slices import SliceRoutes
from serving.gateway.rest.studies import StudyRoutes
from serving.gateway.rest.study_run import StudyLimits, StudyRunner
from serving.gateway.rest.v2 import V2Routes
from serving.gateway.rest.workplace import Workplace
from serving.ui.routes import UiRoutes
from serving.ui.runs import RunFolder
from serving.ui.scans import ScanRoutes
from slicewise import RESEARCH_USE, __version__

DESCRIPTION = (
    f"{RESEARCH_USE} Every image route takes a multipart form, JSON or a bare file; parameters come in the query "
    "string, as form fields or as JSON fields, and the query string wins."
)


def add_routes(app: FastAPI, model: SliceWiseModel, max_request_mb: int, ui_runs: RunFolder | None = None) -> None:
    """Add the routes; to be done before the SDK adds its own, some of which they replace.

    Args:
        app: The application.
        model: The gateway's model.
        max_request_mb: The largest body, from which the sizes of studies follow.
        ui_runs: What the web page may show of runs; None without the page.
    """
    workplace = Workplace()
    runner = StudyRunner(model, StudyLimits.of(max_request_mb))
    jobs = JobStore(runner, workplace)

    documented = APIRouter()
    for routes in (
        InfoRoutes(model, with_ui=ui_runs is not None),
        SliceRoutes(model),
        BatchRoutes(model),
        StudyRoutes(runner, workplace),
        JobRoutes(jobs, runner, workplace),
    ):
        documented.include_router(routes.router())
    app.include_router(APIRouter(lifespan=_lifespan(workplace, jobs)))
    if ui_runs is not None:
        scans = ScanRoutes(model, runner.limits, workplace)
        app.include_router(UiRoutes(scans, ui_runs).router())
    app.include_router(documented)
    app.include_router(V2Routes(model).router())
    _document(app, documented)


def _lifespan(workplace: Workplace, jobs: JobStore) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """Folder and worker live as long as the application."""

    @asynccontextmanager
    async def live(_: FastAPI) -> AsyncIterator[None]:
        workplace.open()
        jobs.start()
        try:
            yield
        finally:
            await jobs.stop()
            await workplace.close()

    return live


def _document(app: FastAPI, router: APIRouter) -> None:
    """The OpenAPI document of our own routes; V1 and V2 are described by their protocols."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            told = get_openapi(title="SliceWise", version=__version__, description=DESCRIPTION, routes=router.routes)
            app.openapi_schema = _without_fastapis_422(told)
        return app.openapi_schema

    # FastAPI's own way to replace the document (docs: "Extending OpenAPI").
    app.openapi = openapi  # type: ignore[method-assign]


def _without_fastapis_422(told: dict[str, Any]) -> dict[str, Any]:
    """FastAPI adds its own form of a wrong parameter everywhere; ours is a 400."""
    for methods in told["paths"].values():
        for operation in methods.values():
            schema = (
                operation["responses"].get("422", {}).get("content", {}).get("application/json", {}).get("schema", {})
            )
            if schema.get("$ref", "").endswith("/HTTPValidationError"):
                del operation["responses"]["422"]
    for name in ("HTTPValidationError", "ValidationError"):
        told["components"]["schemas"].pop(name, None)
    return told
