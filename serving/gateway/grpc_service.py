"""The standard V2 gRPC service, with versions and metrics that the SDK's does not know."""

from __future__ import annotations

import time
from typing import Any

import grpc  # type: ignore[import-untyped]

from serving.gateway.metrics import LATENCY, REQUESTS
from serving.gateway.model import SliceWiseModel
from serving.gateway.sdk import InferenceServicer, ModelNotFound, messages
from serving.gateway.version_choice import chosen
from serving.status import status_of
from slicewise.errors import SliceWiseError


class VersionedServicer(InferenceServicer):  # type: ignore[misc]
    """The SDK's service over one model.

    Args:
        model: The gateway's model.
        data_plane: The SDK's.
        extension: The SDK's.
    """

    def __init__(self, model: SliceWiseModel, data_plane: Any, extension: Any) -> None:
        super().__init__(data_plane, extension)
        self._model = model

    async def ModelInfer(self, request: Any, context: Any) -> Any:
        """Predict; counted under its status."""
        start = time.perf_counter()
        code = grpc.StatusCode.OK
        try:
            return await super().ModelInfer(request, context)
        except Exception as error:
            code = getattr(error, "status_code", None) or grpc.StatusCode.INVALID_ARGUMENT
            raise
        finally:
            REQUESTS.labels("ModelInfer", "grpc", code.name).inc()
            LATENCY.labels("ModelInfer").observe(time.perf_counter() - start)

    async def ModelReady(self, request: Any, context: Any) -> Any:
        """Whether a version answers inferences; False for one that is not served."""
        self._require(request.name)
        if not request.version:
            return messages.ModelReadyResponse(ready=await self._model.healthy())
        try:
            async with chosen(self._model.backend, request.version):
                return messages.ModelReadyResponse(ready=await self._model.healthy())
        except SliceWiseError:
            return messages.ModelReadyResponse(ready=False)

    async def ModelMetadata(self, request: Any, context: Any) -> Any:
        """Inputs, outputs and versions."""
        self._require(request.name)
        try:
            async with self._model.backend.lease(request.version or None):
                metadata = await self._data_plane.model_metadata(request.name)
        except SliceWiseError as error:
            await context.abort(getattr(grpc.StatusCode, status_of(error).grpc), str(error))
        return messages.ModelMetadataResponse(
            name=metadata["name"],
            versions=metadata["versions"],
            platform=metadata["platform"],
            inputs=metadata["inputs"],
            outputs=metadata["outputs"],
        )

    def _require(self, name: str) -> None:
        if name != self._model.name:
            raise ModelNotFound(name)
