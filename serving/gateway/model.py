"""The KServe model: what the SDK's V1 and gRPC endpoints call."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import grpc  # type: ignore[import-untyped]
import orjson
from grpc_interceptor.exceptions import GrpcException

from serving.codecs import v2, v2_model
from serving.codecs.tensors import Array, datatype_of, pack
from serving.gateway.backend import Backend
from serving.gateway.sdk import InferRequest, InvalidInput, Model, messages, to_http_parameters
from serving.gateway.version_choice import CHOSEN
from serving.status import error_fields, status_of
from slicewise.errors import InputError, SliceWiseError


class SliceWiseModel(Model):  # type: ignore[misc]
    """A transformer in KServe's words: it forwards to the model server.

    Args:
        name: The served name.
        backend: The model server, or all its versions.
    """

    def __init__(self, name: str, backend: Backend) -> None:
        super().__init__(name)
        self._backend = backend
        self.ready = True

    @property
    def backend(self) -> Backend:
        """The version that the request at hand chose, else the whole."""
        return CHOSEN.get() or self._backend

    async def close(self) -> None:
        """Close the ways to the model server."""
        await self._backend.close()

    async def healthy(self) -> bool:
        """Whether the backend answers; the SDK asks before every request, so the answer is a moment old."""
        return await self.backend.healthy()

    def get_input_types(self) -> list[dict[str, Any]]:
        """Inputs, for the V2 metadata."""
        return _types(v2_model.INPUTS)

    def get_output_types(self) -> list[dict[str, Any]]:
        """Outputs, for the V2 metadata."""
        return _types(v2_model.OUTPUTS)

    async def predict(self, payload: Any, headers: Mapping[str, str] | None = None) -> Any:
        """A V1 body, or a V2 request that came by gRPC."""
        if isinstance(payload, InferRequest):
            return await self._infer(payload)
        if not isinstance(payload, dict):
            raise InputError("the body must be a JSON object", 'send {"instances": [{"image": …}]}')
        response = await self.backend.forward(_as_json(payload), {"content-type": "application/json"})
        return orjson.loads(response.content)

    async def explain(self, payload: Any, headers: Mapping[str, str] | None = None) -> Any:
        """A V1 body to ``:explain``: as ``:predict`` with the task ``explain`` unless the body names its tasks."""
        if isinstance(payload, dict) and isinstance(payload.get("parameters", {}), dict):
            payload = payload | {"parameters": {"tasks": "classify,explain"} | payload.get("parameters", {})}
        return await self.predict(payload, headers)

    async def _infer(self, request: Any) -> Any:
        try:
            parameters = dict(to_http_parameters(request.parameters or {}))
            tensors = {item.name: _as_array(item) for item in request.inputs}
            for item in request.inputs:
                parameters = (item.parameters or {}) | parameters
            wanted = tuple(output.name for output in request.request_outputs or ())
            async with self.backend.lease(request.model_version or None) as backend:
                answer = await backend.infer(tensors, _plain(parameters), wanted)
        except SliceWiseError as error:
            code = getattr(grpc.StatusCode, status_of(error).grpc)
            fields = error_fields(error)
            text = " — ".join(part for part in (fields["message"], fields["cure"]) if part)
            raise GrpcException(details=text, status_code=code) from error
        return to_message(answer, self.name, request.id or "")


def to_message(answer: v2.Message, name: str, request_id: str) -> Any:
    """An answer as gRPC message, its tensors as raw contents."""
    texts = {key: messages.InferParameter(string_param=str(value)) for key, value in answer.parameters.items()}
    return messages.ModelInferResponse(
        id=request_id,
        model_name=name,
        model_version=answer.model_version,
        parameters=texts,
        outputs=[
            messages.ModelInferResponse.InferOutputTensor(
                name=key, datatype=datatype_of(array), shape=list(array.shape)
            )
            for key, array in answer.tensors.items()
        ],
        raw_output_contents=[pack(array) for array in answer.tensors.values()],
    )


def _as_json(payload: Mapping[str, Any]) -> bytes:
    """A V1 body again; orjson reads deeper lists than it writes."""
    try:
        return orjson.dumps(payload)
    except orjson.JSONEncodeError as error:
        cure = "send images as [height][width] numbers or base64"
        raise InputError("the body is nested too deeply", cure) from error


def _as_array(item: Any) -> Array:
    try:
        array: Array = item.as_numpy()
    except (ValueError, TypeError, struct.error, InvalidInput) as error:
        raise InputError(
            f"inputs: {item.name!r} does not fill its shape or datatype", "send whole tensors"
        ) from error
    return array


def _plain(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in parameters.items() if key != "binary_data_size"}


def _types(entries: tuple[tuple[str, str, list[int]], ...]) -> list[dict[str, Any]]:
    return [{"name": name, "datatype": datatype, "shape": shape} for name, datatype, shape in entries]
