"""The parts of the KServe SDK that the gateway uses, imported without letting it read our command line.

The SDK parses ``sys.argv`` when it is imported, and would take or refuse words that are meant for us.
"""

from __future__ import annotations

import sys
import warnings

_own, sys.argv = sys.argv, sys.argv[:1]
try:
    from kserve import Model, ModelServer
    from kserve.errors import InferenceError, InvalidInput, ModelNotFound, ModelNotReady, UnsupportedProtocol
    from kserve.model_server import app, args
    from kserve.protocol.dataplane import DataPlane
    from kserve.protocol.grpc import grpc_predict_v2_pb2 as messages
    from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc as stubs
    from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import add_GRPCInferenceServiceServicer_to_server
    from kserve.protocol.grpc.interceptors import ExceptionToStatusInterceptor
    from kserve.protocol.grpc.servicer import InferenceServicer
    from kserve.protocol.infer_type import InferRequest, to_http_parameters
    from kserve.protocol.rest.server import RESTServer
finally:
    sys.argv = _own

# The program that starts the gateway configures logging, not the SDK.
args.configure_logging = False
# The SDK's choice of a response class is not ours to discuss on the user's terminal.
warnings.filterwarnings("ignore", message="ORJSONResponse is deprecated")

__all__ = [
    "DataPlane",
    "ExceptionToStatusInterceptor",
    "InferRequest",
    "InferenceError",
    "InferenceServicer",
    "InvalidInput",
    "Model",
    "ModelNotFound",
    "ModelNotReady",
    "ModelServer",
    "RESTServer",
    "UnsupportedProtocol",
    "add_GRPCInferenceServiceServicer_to_server",
    "app",
    "messages",
    "stubs",
    "to_http_parameters",
]
