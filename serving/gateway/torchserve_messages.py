"""The two messages of TorchServe's gRPC ``Predictions`` call, described here as its package ships no stubs.

Field numbers as in ``inference.proto`` of TorchServe 0.12.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # type: ignore[import-untyped]

PACKAGE = "org.pytorch.serve.grpc.inference"
PREDICTIONS = f"/{PACKAGE}.InferenceAPIsService/Predictions"
_Field = descriptor_pb2.FieldDescriptorProto


def _described() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="torchserve.proto", package=PACKAGE, syntax="proto3")
    request = file.message_type.add(name="PredictionsRequest")
    request.field.add(name="model_name", number=1, type=_Field.TYPE_STRING, label=_Field.LABEL_OPTIONAL)
    entry = request.nested_type.add(name="InputEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=_Field.TYPE_STRING, label=_Field.LABEL_OPTIONAL)
    entry.field.add(name="value", number=2, type=_Field.TYPE_BYTES, label=_Field.LABEL_OPTIONAL)
    kind = f".{PACKAGE}.PredictionsRequest.InputEntry"
    request.field.add(name="input", number=3, type=_Field.TYPE_MESSAGE, type_name=kind, label=_Field.LABEL_REPEATED)
    response = file.message_type.add(name="PredictionResponse")
    response.field.add(name="prediction", number=1, type=_Field.TYPE_BYTES, label=_Field.LABEL_OPTIONAL)
    return file


# A pool of our own: another package's stubs for the same service may be loaded beside it.
_POOL = descriptor_pool.DescriptorPool()
_POOL.Add(_described())


def _message(name: str) -> Any:
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{PACKAGE}.{name}"))


PredictionsRequest = _message("PredictionsRequest")
PredictionResponse = _message("PredictionResponse")
