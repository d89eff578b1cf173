"""The parts of ``cluster.yaml``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from slicewise.config import Count, Section

Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|[kMGTPE]i?)?$")]
# A registry's name for an image, with a tag, a digest, or both.
Image = Annotated[str, Field(pattern=r"^[\w.\-/:]+(:[\w.\-]+|@sha256:[0-9a-f]{64})$")]
VariableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
ClaimName = Annotated[str, Field(pattern=r"^([a-z0-9]([a-z0-9.\-]*[a-z0-9])?)?$")]
Folder = Annotated[str, Field(pattern=r"^/[\w.\-/]+$")]


class Resources(Section):
    """CPU and memory of a task, in Kubernetes' units."""

    cpu: Quantity = "2"
    memory: Quantity = "8Gi"


class StageSettings(Section):
    """What differs for one component; what is not given is as for the others.

    Attributes:
        cpu: Asked for.
        cpu_limit: Not to be exceeded; without it a task may use what is free.
        memory: Asked for, and not to be exceeded.
        retries: How often a failed task is tried again.
        timeout_minutes: A task that takes longer fails; 0 for never.
        cache: Whether a finished task is taken from Kubeflow's cache.
    """

    cpu: Quantity | None = None
    cpu_limit: Quantity | None = None
    memory: Quantity | None = None
    retries: Annotated[int, Field(ge=0)] | None = None
    timeout_minutes: Annotated[int, Field(ge=0)] | None = None
    cache: bool | None = None


class Toleration(Section):
    """A taint that pods put up with, in Kubernetes' words; without a value any value is tolerated."""

    key: str = ""
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = "NoSchedule"

    @property
    def operator(self) -> Literal["Exists", "Equal"]:
        """``Exists``, or ``Equal`` where there is a value."""
        return "Exists" if self.value is None else "Equal"

    def kubernetes(self) -> dict[str, Any]:
        """As in a pod's ``tolerations``."""
        return {"operator": self.operator} | {name: value for name, value in self.model_dump().items() if value}


def as_toleration(value: Any) -> Any:
    """A mere word is a taint's key."""
    return {"key": value} if isinstance(value, str) else value


class NodeExpression(Section):
    """One demand on a node's labels."""

    key: Annotated[str, Field(min_length=1)]
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"] = "In"
    values: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _has_values(self) -> NodeExpression:
        if (self.operator in ("Exists", "DoesNotExist")) == bool(self.values):
            raise ValueError(f"operator {self.operator} takes {'no values' if self.values else 'values'}")
        return self


class AffinityTerm(Section):
    """Demands that a node must meet together; with a weight (1 to 100) they are wishes."""

    expressions: Annotated[tuple[NodeExpression, ...], Field(min_length=1)]
    weight: Annotated[int, Field(ge=1, le=100)] | None = None

    def kubernetes(self) -> dict[str, Any]:
        """As a ``nodeSelectorTerm``."""
        return {"matchExpressions": [item.model_dump(mode="json") for item in self.expressions]}


class SecretEnv(Section):
    """Keys of a secret as environment variables.

    Attributes:
        name: The secret, in the pipeline's namespace.
        env: Variable → key of the secret.
        stages: Which components get them; empty for all.
        optional: Whether pods start without the secret.
    """

    name: Annotated[str, Field(min_length=1)]
    env: Annotated[dict[VariableName, str], Field(min_length=1)]
    stages: tuple[str, ...] = ()
    optional: bool = False


class Data(Section):
    """Where raw data comes from.

    Attributes:
        claim: A PersistentVolumeClaim with scans, mounted for ``download``; empty for none.
        mount: Where: sources then are folders below it.
        s3_endpoint: The object storage for ``s3://`` sources and for the deployed model; empty for AWS.
        s3_region: Its region.
    """

    claim: ClaimName = ""
    mount: Folder = "/data"
    s3_endpoint: Annotated[str, Field(pattern=r"^(https?://\S+)?$")] = ""
    s3_region: str = ""

    @property
    def env(self) -> dict[str, str]:
        """As boto3 reads them."""
        named = {"AWS_ENDPOINT_URL_S3": self.s3_endpoint, "AWS_DEFAULT_REGION": self.s3_region}
        return {name: value for name, value in named.items() if value}


class TrainPlacement(Section):
    """Where a training stage runs.

    Attributes:
        backend: ``pod``: in the task's own pod, on its GPUs; ``trainjob``: in a TrainJob of Kubeflow Trainer.
        nodes: Machines of a TrainJob, each with ``gpu_count`` GPUs.
        runtime: The TrainingRuntime it is made from (``manifests/trainer``).
        namespace: Where it runs; empty for the pipeline's.
    """

    backend: Literal["pod", "trainjob"] = "pod"
    nodes: Count = 2
    runtime: str = "slicewise-torch"
    namespace: str = ""
