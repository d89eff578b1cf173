"""V2 over HTTP as it came: the SDK's own endpoint would turn every tensor into a list."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from serving.codecs import v2
from serving.gateway.model import SliceWiseModel
from serving.gateway.sdk import ModelNotFound


class V2Routes:
    """The V2 inference endpoint.

    Args:
        model: The gateway's model.
    """

    def __init__(self, model: SliceWiseModel) -> None:
        self._model = model

    def router(self) -> APIRouter:
        """It."""
        router = APIRouter()
        router.add_api_route("/v2/models/{model_name}/infer", self.infer, methods=["POST"], include_in_schema=False)
        return router

    async def infer(self, model_name: str, request: Request) -> Response:
        """JSON or binary: the model server reads it."""
        if model_name != self._model.name:
            raise ModelNotFound(model_name)
        headers, body = {"content-type": "application/json"}, await request.body()
        if (length := request.headers.get(v2.LENGTH_HEADER)) is not None:
            # Whatever it is goes into a header again: only a number may.
            headers = {v2.LENGTH_HEADER: str(v2.head_length(length, len(body))), "content-type": v2.BINARY}
        response = await self._model.backend.forward(body, headers)
        kept = {name: response.headers[name] for name in (v2.LENGTH_HEADER,) if name in response.headers}
        return Response(response.content, media_type=response.headers["content-type"], headers=kept)
