"""The page's own routes, all below ``/ui``: its files, the samples and the runs."""

from __future__ import annotations

import asyncio
import mimetypes
from pathlib import Path

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse, RedirectResponse

from serving.status import NotFoundError
from serving.ui import samples
from serving.ui.replies import SECURE, document_reply, page_reply
from serving.ui.runs import RunFolder
from serving.ui.scans import ScanRoutes

STATIC = Path(__file__).with_name("static")
KINDS = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".html": "text/html; charset=utf-8"}


class UiRoutes:
    """The page.

    Args:
        scans: The routes that look at uploads.
        runs: The runs to show.
    """

    def __init__(self, scans: ScanRoutes, runs: RunFolder) -> None:
        self._scans = scans
        self._runs = runs
        # Read once: what is not among them cannot be asked for.
        self._files = {path.name: path.read_bytes() for path in STATIC.iterdir() if path.suffix in KINDS}

    def router(self) -> APIRouter:
        """All of them; the document of the public routes does not list them."""
        router = APIRouter(include_in_schema=False)
        router.add_api_route("/ui", lambda: RedirectResponse("/ui/"), methods=["GET"])
        router.add_api_route("/ui/", self.page, methods=["GET"])
        router.add_api_route("/ui/api/samples", self.samples, methods=["GET"])
        router.add_api_route("/ui/api/samples/{name}", self.sample, methods=["GET"])
        self._scans.add_to(router)
        router.add_api_route("/ui/api/runs", self.runs, methods=["GET"])
        router.add_api_route("/ui/api/runs/{name}/metrics", self.metrics, methods=["GET"])
        router.add_api_route("/ui/api/runs/{name}/{kind}", self.document, methods=["GET"])
        router.add_api_route("/ui/{name}", self.file, methods=["GET"])
        return router

    async def page(self) -> Response:
        """The page itself."""
        return await self.file("index.html")

    async def file(self, name: str) -> Response:
        """One of the page's files.

        Raises:
            NotFoundError: There is no such file.
        """
        if name not in self._files:
            raise NotFoundError("the page has no such file", "open /ui/")
        return page_reply(self._files[name], KINDS[Path(name).suffix])

    async def samples(self) -> Response:
        """What samples there are."""
        return JSONResponse(samples.listing(), headers=SECURE)

    async def sample(self, name: str) -> Response:
        """One file of a phantom."""
        content = await asyncio.to_thread(samples.content, name)
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        return Response(content, media_type=kind, headers=SECURE)

    async def runs(self) -> Response:
        """The runs, newest first."""
        return JSONResponse(await asyncio.to_thread(self._runs.listing), headers=SECURE)

    async def metrics(self, name: str) -> Response:
        """A run's figures."""
        return JSONResponse(await asyncio.to_thread(self._runs.metrics, name), headers=SECURE)

    async def document(self, name: str, kind: str) -> Response:
        """A run's report or model card."""
        return document_reply(await asyncio.to_thread(self._runs.document, name, kind))
