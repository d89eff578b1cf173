"""The page, the health, what is known of the model, and the documentation of the routes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse

from serving.gateway.model import SliceWiseModel
from serving.gateway.rest.openapi import errors
from serving.gateway.rest.schemas import Health, ModelInfo
from slicewise import RESEARCH_USE, __version__

PAGES = Path(__file__).parents[1]
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data: blob:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class InfoRoutes:
    """What can be asked without an image.

    Args:
        model: The gateway's model.
        with_ui: Whether browsers are sent on to the large web page.
    """

    def __init__(self, model: SliceWiseModel, *, with_ui: bool = False) -> None:
        self._with_ui = with_ui
        self._model = model
        self._page = (PAGES / "page.html").read_text(encoding="utf-8").replace("{{RESEARCH_USE}}", RESEARCH_USE)
        self._docs = (PAGES / "docs.html").read_text(encoding="utf-8").replace("{{RESEARCH_USE}}", RESEARCH_USE)

    def router(self) -> APIRouter:
        """All of them."""
        router = APIRouter(tags=["service"])
        router.add_api_route("/", self.page, methods=["GET"], include_in_schema=False)
        router.add_api_route("/docs", self.docs, methods=["GET"], include_in_schema=False)
        unavailable: dict[int | str, Any] = {503: {"model": Health, "description": "The model does not answer."}}
        router.add_api_route("/healthz", self.healthz, methods=["GET"], response_model=Health, responses=unavailable)
        router.add_api_route(
            "/model/info",
            self.info,
            methods=["GET"],
            response_model=ModelInfo,
            responses=errors(404, 429, 500, 503, 504),
        )
        return router

    async def page(self, request: Request) -> Response:
        """The web page for browsers; for all others the liveness that KServe's V1 protocol has at this address."""
        headers = PAGE_HEADERS | {"Vary": "Accept"}
        if "text/html" in request.headers.get("accept", ""):
            if self._with_ui:
                return RedirectResponse("/ui/", headers=headers)
            return HTMLResponse(self._page, headers=headers)
        return JSONResponse({"status": "alive"}, headers=headers)

    async def docs(self) -> Response:
        """The routes' documentation, drawn from ``/openapi.json`` by a page of our own: it asks nobody else."""
        return HTMLResponse(self._docs, headers=PAGE_HEADERS)

    async def healthz(self) -> Response:
        """200 when the model answered a tiny inference just now, else 503."""
        healthy = await self._model.backend.healthy()
        health = Health(status="ok" if healthy else "unavailable", model=self._model.name, version=__version__)
        return JSONResponse(health.model_dump(), 200 if healthy else 503)

    async def info(self, version: str | None = None) -> Response:
        """What the bundle says of the model, or of the version asked for."""
        async with self._model.backend.lease(version) as backend:
            return JSONResponse(await backend.describe())
