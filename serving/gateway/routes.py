"""SliceWise's own routes, and V2 over HTTP as it came."""

from __future__ import annotations

import re
import time
import uuid
from pathlib import Path
from typing import Any, cast

import numpy as np
from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse

from serving.answers import class_fields, mask_fields, ood_fields
from serving.codecs import v2
from serving.codecs.parameters import spacing
from serving.gateway.model import SliceWiseModel
from serving.gateway.sdk import ModelNotFound
from serving.gateway.uploads import read_upload
from slicewise import RESEARCH_USE, __version__
from slicewise.inference.calibration import Decision

PAGE = Path(__file__).with_name("page.html")
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data: blob:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class Routes:
    """The routes over one model.

    Args:
        model: The gateway's model.
    """

    def __init__(self, model: SliceWiseModel) -> None:
        self._model = model
        self._page = PAGE.read_text(encoding="utf-8").replace("{{RESEARCH_USE}}", RESEARCH_USE)

    def router(self) -> APIRouter:
        """All of them; to be included before the SDK's, some of which they replace."""
        router = APIRouter()
        router.add_api_route("/", self.page, methods=["GET"], include_in_schema=False)
        router.add_api_route("/healthz", self.healthz, methods=["GET"])
        router.add_api_route("/model/info", self.info, methods=["GET"])
        router.add_api_route("/classify", self.classify, methods=["POST"])
        router.add_api_route("/segment", self.segment, methods=["POST"])
        router.add_api_route("/v2/models/{model_name}/infer", self.infer, methods=["POST"])
        return router

    async def page(self) -> Response:
        """The web page."""
        return HTMLResponse(self._page, headers=PAGE_HEADERS)

    async def healthz(self) -> Response:
        """200 when the model answered a tiny inference just now, else 503."""
        healthy = await self._model.backend.healthy()
        status = {"status": "ok" if healthy else "unavailable", "model": self._model.name, "version": __version__}
        return JSONResponse(status, 200 if healthy else 503)

    async def info(self) -> Response:
        """What the bundle says of the model."""
        return JSONResponse(await self._model.backend.describe())

    async def classify(self, request: Request) -> Response:
        """Class probabilities of one slice."""
        return await self._answer(request, "classify")

    async def segment(self, request: Request) -> Response:
        """Class probabilities and masks of one slice."""
        return await self._answer(request, "classify,segment")

    async def infer(self, model_name: str, request: Request) -> Response:
        """V2, JSON or binary: the handler reads it, as the SDK's own endpoint turns tensors into lists."""
        if model_name != self._model.name:
            raise ModelNotFound(model_name)
        headers = {"content-type": "application/json"}
        if (length := request.headers.get(v2.LENGTH_HEADER)) is not None:
            headers = {v2.LENGTH_HEADER: length, "content-type": v2.BINARY}
        response = await self._model.backend.forward(await request.body(), headers)
        kept = {name: response.headers[name] for name in (v2.LENGTH_HEADER,) if name in response.headers}
        return Response(response.content, media_type=response.headers["content-type"], headers=kept)

    async def _answer(self, request: Request, tasks: str) -> Response:
        start = time.perf_counter()
        upload = await read_upload(request)
        pixel_mm = upload.parameters.get("pixel_mm")
        area = None if pixel_mm is None else spacing(pixel_mm)
        read = time.perf_counter()
        answer = await self._model.backend.infer(upload.tensors, upload.parameters | {"tasks": tasks})
        back = time.perf_counter()
        probability, threshold = float(answer.tensors["tumor_probability"][0]), float(answer.parameters["threshold"])
        fields = class_fields(probability, threshold, cast("Decision", str(answer.parameters["decision"])))
        fields |= ood_of(answer)
        if "mask" in answer.tensors:
            fields |= mask_fields(np.asarray(answer.tensors["mask"][0]), area, trained_regions(answer.parameters))
        digest = answer.parameters["model_digest"]
        fields["model"] = {"name": self._model.name, "version": answer.model_version, "digest": digest}
        fields["request_id"] = request_id(request)
        fields["timings_ms"] = _timings(answer.parameters, start, read, back)
        return JSONResponse(fields, headers={"x-request-id": fields["request_id"]})


def ood_of(answer: v2.Message) -> dict[str, Any]:
    """The fields of the first slice's out-of-distribution score."""
    if "ood_score" not in answer.tensors:
        return ood_fields(None, None)
    return ood_fields(float(answer.tensors["ood_score"][0]), str(answer.parameters["ood_flag"]) == "true")


def trained_regions(parameters: Any) -> list[str]:
    """The regions that the model was taught."""
    return [name for name in str(parameters.get("trained_regions", "")).split(",") if name]


def request_id(request: Request) -> str:
    """The caller's ``X-Request-ID`` if it is a decent one, else a new one."""
    given = request.headers.get("x-request-id", "")
    return given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def _timings(parameters: Any, start: float, read: float, back: float) -> dict[str, float]:
    inside = {name.removesuffix("_ms"): value for name, value in parameters.items() if name.endswith("_ms")}
    own = {"read": read - start, "backend": back - read, "total": time.perf_counter() - start}
    return inside | {name: round(1e3 * seconds, 3) for name, seconds in own.items()}
