"""The section ``serve``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, model_validator

from slicewise.config.base import MODALITIES, Count, Section
from slicewise.config.canary import CanaryConfig
from slicewise.config.predictor import PLAIN, PredictorSettings

FLOAT_BYTES = 4
# A client's JSON or multipart wrapping comes on top of the pictures themselves.
WRAPPING_BYTES = 1 << 20

BackendKind = Literal["torchserve-http", "torchserve-grpc", "inprocess"]


class ServeConfig(Section):
    """The served model; port 0 takes a free one.

    Attributes:
        backend: Where the Predictor runs: in TorchServe, reached by HTTP or gRPC, or in the gateway's process.
        predictor: How the network is run: by default plain torch, so that every machine starts at once and answers
            alike; ``engine: auto`` measures at the start what is fastest.
        workers: TorchServe's workers, each with a model of its own; of two, one computes while the other's answer is
            on its way, and one is left when the other dies.
        batch_size: Requests that share a batch, at most.
        max_batch_delay_ms: How long a batch waits in TorchServe to fill, which a lone request pays; in the gateway's
            process none waits, as the next one fills while one is computed.
        max_study_voxels: The largest study allowed, in voxels of one modality. Every limit on sizes follows.
        max_request_mb: The largest body; by default what such a study takes in float32 with all modalities.
        timeout_s: Deadline of one request.
        max_in_flight: Requests at the model server at once, at most.
        max_waiting: Requests that wait for their turn before it, at most; one more is told to come again.
        max_wait_s: How long one of them waits at most.
        ui: Whether the web page is served too, below ``/ui/``.
        ui_runs: A folder of runs that the page may show; empty for none.
        storage_uri: Where models for the cluster lie: ``s3://BUCKET/PREFIX`` or ``pvc://CLAIM/PATH``.
        storage_mount: The folder in which a ``pvc://`` claim is mounted where ``deploy`` runs.
        deployment_mode: ``standard`` makes plain Deployments, ``serverless`` uses Knative; KServe does not let an
            InferenceService that is there change it.
        require_gate: Whether a model that the gate refused is refused here too.
        model_registry: Address of a Kubeflow Model Registry that is told of every version as well; empty for none.
        canary: How a new model takes the place of the former one.
    """

    model_name: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")] = "slicewise"
    backend: BackendKind = "torchserve-http"
    predictor: PredictorSettings = PLAIN
    gateway_port: Annotated[int, Field(ge=0, le=65535)] = 0
    gateway_grpc_port: Annotated[int, Field(ge=0, le=65535)] = 0
    torchserve_port: Annotated[int, Field(ge=0, le=65535)] = 0
    torchserve_grpc_port: Annotated[int, Field(ge=0, le=65535)] = 0
    torchserve_metrics_port: Annotated[int, Field(ge=0, le=65535)] = 0
    workers: Count = 2
    batch_size: Count = 8
    # TorchServe takes 0 for nothing said, and waits its own 100 ms.
    max_batch_delay_ms: Count = 1
    max_study_voxels: Annotated[int, Field(ge=1, le=2**26)] = 2**24
    max_request_mb: Count = 256
    timeout_s: Count = 120
    max_in_flight: Count = 32
    max_waiting: Annotated[int, Field(ge=0)] = 128
    max_wait_s: PositiveFloat = 30.0
    ui: bool = False
    ui_runs: str = ""
    namespace: str = "slicewise"
    storage_uri: str = ""
    storage_mount: str = ""
    deployment_mode: Literal["standard", "serverless"] = "standard"
    require_gate: bool = True
    model_registry: str = ""
    canary: CanaryConfig = CanaryConfig()

    @model_validator(mode="before")
    @classmethod
    def _request_of_study(cls, given: Any) -> Any:
        """The largest body follows from the largest study, where it is not given itself."""
        if not isinstance(given, dict) or "max_request_mb" in given:
            return given
        voxels = given.get("max_study_voxels")
        if not isinstance(voxels, int):
            return given
        study_bytes = voxels * len(MODALITIES) * FLOAT_BYTES
        return given | {"max_request_mb": max(1, -(-study_bytes // 2**20))}

    @property
    def max_body_bytes(self) -> int:
        """The largest body that the model server takes, with its wrapping."""
        return (self.max_request_mb << 20) + WRAPPING_BYTES
