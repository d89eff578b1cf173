"""V2 requests and answers as the messages of the standard gRPC service, and its refusals as errors."""

from __future__ import annotations

from typing import Any

import grpc  # type: ignore[import-untyped]

from serving.codecs.tensors import datatype_of, pack, unpack
from serving.codecs.v2 import Message
from serving.gateway.sdk import messages, stubs
from serving.status import BackendError, BusyError, DeadlineError, UnknownVersionError
from slicewise.errors import InputError, TooLargeError

OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_http_proxy", 0),
)
# The service has one code for "too large" and for "too many"; only the second is cured by waiting.
COME_AGAIN = ("try again", "at once")
KINDS: dict[Any, type[InputError | BackendError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InputError,
    grpc.StatusCode.FAILED_PRECONDITION: InputError,
    grpc.StatusCode.NOT_FOUND: UnknownVersionError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineError,
}
Stub = stubs.GRPCInferenceServiceStub


def to_request(model: str, message: Message) -> Any:
    """A request with its tensors as raw contents."""
    tensors = [
        messages.ModelInferRequest.InferInputTensor(name=name, datatype=datatype_of(array), shape=list(array.shape))
        for name, array in message.tensors.items()
    ]
    texts = {name: messages.InferParameter(string_param=str(value)) for name, value in message.parameters.items()}
    outputs = [messages.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in message.wanted]
    return messages.ModelInferRequest(
        model_name=model,
        model_version=message.model_version,
        parameters=texts,
        inputs=tensors,
        outputs=outputs,
        raw_input_contents=[pack(array) for array in message.tensors.values()],
    )


def from_response(response: Any) -> Message:
    """An answer with its tensors from raw contents.

    Raises:
        BackendError: They do not fit.
    """
    try:
        tensors = {
            output.name: unpack(content, output.datatype, tuple(output.shape), output.name)
            for output, content in zip(response.outputs, response.raw_output_contents, strict=True)
        }
    except (InputError, ValueError, KeyError) as error:
        raise BackendError("the answer's tensors do not fit their shapes", "see the server's log") from error
    parameters = {
        name: getattr(value, value.WhichOneof("parameter_choice")) for name, value in response.parameters.items()
    }
    return Message(tensors, parameters, response.id, response.model_name, response.model_version)


def refusal(error: Any, target: str) -> InputError | BackendError:
    """The error behind a gRPC status, with the server's message and cure."""
    code, details = error.code(), str(error.details() or "")
    message, _, cure = details.partition(" — ")
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        waits = any(words in details for words in COME_AGAIN)
        return (BusyError if waits else TooLargeError)(message, cure or "send fewer slices at once")
    if code is grpc.StatusCode.UNAVAILABLE and not cure:
        return BackendError(f"{target} cannot be reached: {message}", "start the server, or check the address")
    return KINDS.get(code, BackendError)(message or f"the server answered {code.name}", cure)


def is_busy(error: InputError | BackendError, status: Any) -> bool:
    """Whether the server itself said that it is busy or not ready, so that waiting may help."""
    if isinstance(error, BusyError):
        return True
    return status.code() is grpc.StatusCode.UNAVAILABLE and " — " in str(status.details() or "")
