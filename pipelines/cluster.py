"""What the pipeline needs of a cluster: ``cluster.yaml``, read and checked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from components.images import TARGETS, component_image
from pipelines.cluster_parts import (
    AffinityTerm,
    Data,
    Image,
    Quantity,
    Resources,
    SecretEnv,
    StageSettings,
    Toleration,
    TrainPlacement,
    as_toleration,
)
from slicewise.config import Section, validate
from slicewise.config.load import near, read_yaml
from slicewise.errors import ConfigError

CHECKPOINTS = "/checkpoints"
# What is heavy on processor and memory; the others take ``light``.
HEAVY = {"preprocess", "preprocess_shard", "merge_shards", "train", "calibrate", "evaluate"}
# What runs faster on a GPU; training alone takes several.
GPU = {"train", "calibrate", "evaluate"}
# What runs is not a result to be remembered, and a run's end is told anew.
NEVER_CACHED = {"deploy", "summarise"}


class ClusterConfig(Section):
    """Settings of the compiled pipeline; ``configs/cluster.yaml`` is an example with every key.

    Attributes:
        image: One image for every component; empty takes each component's own.
        images: Component → image, before ``image``.
        require_digest: Refuse images that are not pinned by their digest.
        image_pull_secrets: Names of secrets with registry credentials.
        image_pull_policy: Kubernetes' word for it.
        gpu_type: The resource's name; empty runs on CPUs.
        gpu_count: How many for a training task, or for each machine of a TrainJob; calibration and evaluation take
            one. 0 runs on CPUs.
        node_selector: Labels of the nodes for GPU tasks.
        affinity: Node affinity of GPU tasks; terms with a weight are preferred, the others required.
        tolerations: Of GPU tasks; a mere word tolerates the taint of that key with effect NoSchedule.
        shared_memory: Size of ``/dev/shm`` for GPU tasks.
        light: Resources of small tasks.
        heavy: Resources of preprocessing, training, calibration and evaluation.
        stages: Component → what differs for it.
        retries: How often a failed task is tried again.
        retry_backoff_s: The wait before the first retry.
        retry_factor: Each further wait is so many times longer.
        retry_max_s: No wait is longer.
        timeout_minutes: A task that takes longer fails; 0 for never.
        cache: Whether finished tasks are taken from Kubeflow's cache.
        data: Where raw data comes from.
        secrets: Secrets as environment, by reference: no value is ever in the compiled file.
        env: Plain environment of every task.
        service_account: Of every pod; goes with ``slicewise submit``.
        run_as_user: The user of every container; never root.
        run_as_group: The group of every container.
        labels: Of every pod.
        annotations: Of every pod.
        checkpoint_claim: A PersistentVolumeClaim on which training keeps its checkpoints, so that a retried task
            goes on from the last one; empty starts the stage again.
        train: Whether training runs in the task's pod, or on several machines.
    """

    image: Image | Literal[""] = ""
    images: dict[str, Image] = Field(default_factory=dict)
    require_digest: bool = False
    image_pull_secrets: tuple[str, ...] = ()
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    gpu_type: str = "nvidia.com/gpu"
    gpu_count: Annotated[int, Field(ge=0)] = 1
    node_selector: dict[str, str] = Field(default_factory=dict)
    affinity: tuple[AffinityTerm, ...] = ()
    tolerations: tuple[Annotated[Toleration, BeforeValidator(as_toleration)], ...] = (
        Toleration(key="nvidia.com/gpu"),
    )
    shared_memory: Quantity = "2Gi"
    light: Resources = Resources(cpu="1", memory="2Gi")
    heavy: Resources = Resources(cpu="4", memory="16Gi")
    stages: dict[str, StageSettings] = Field(default_factory=dict)
    retries: Annotated[int, Field(ge=0)] = 2
    retry_backoff_s: Annotated[int, Field(ge=0)] = 30
    retry_factor: Annotated[float, Field(ge=1)] = 2.0
    retry_max_s: Annotated[int, Field(ge=1)] = 3600
    timeout_minutes: Annotated[int, Field(ge=0)] = 0
    cache: bool = True
    data: Data = Data()
    secrets: tuple[SecretEnv, ...] = ()
    env: dict[str, str] = Field(default_factory=dict)
    service_account: str = ""
    run_as_user: Annotated[int, Field(ge=1)] = 10001
    run_as_group: Annotated[int, Field(ge=1)] = 10001
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    checkpoint_claim: str = ""
    train: TrainPlacement = TrainPlacement()

    @field_validator("images", "stages")
    @classmethod
    def _are_components(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in value:
            if name not in TARGETS:
                raise ValueError(f"no component {name!r}{near(name, TARGETS)}; there are {', '.join(TARGETS)}")
        return value

    @field_validator("secrets")
    @classmethod
    def _stages_exist(cls, value: tuple[SecretEnv, ...]) -> tuple[SecretEnv, ...]:
        for name in (name for secret in value for name in secret.stages):
            if name not in TARGETS:
                raise ValueError(f"no component {name!r}{near(name, TARGETS)}; there are {', '.join(TARGETS)}")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> ClusterConfig:
        if self.train.backend == "trainjob" and not self.checkpoint_claim:
            raise ValueError("train.backend trainjob needs checkpoint_claim, a volume that all its pods can mount")
        if self.require_digest and (open_ := [name for name in TARGETS if "@sha256:" not in self.image_of(name)]):
            raise ValueError(f"require_digest: the image of {open_[0]} has none; write it as NAME@sha256:DIGEST")
        return self

    @property
    def checkpoints(self) -> str:
        """The folder on that claim, or nothing."""
        return CHECKPOINTS if self.checkpoint_claim else ""

    @property
    def has_gpu(self) -> bool:
        """Whether any task asks for a GPU."""
        return bool(self.gpu_type and self.gpu_count)

    @property
    def processes(self) -> int:
        """Of one machine in training: one per GPU."""
        return self.gpu_count if self.has_gpu else 1

    def image_of(self, name: str) -> str:
        """The image of a component."""
        return self.images.get(name) or self.image or component_image(name, gpu=self.has_gpu)

    def settings_of(self, name: str) -> StageSettings:
        """What a component gets, nothing left open but its CPU limit."""
        resources = self.heavy if name in HEAVY else self.light
        general = StageSettings(
            cpu=resources.cpu,
            memory=resources.memory,
            retries=self.retries,
            timeout_minutes=self.timeout_minutes,
            cache=self.cache and name not in NEVER_CACHED,
        )
        own = self.stages.get(name, StageSettings()).model_dump(exclude_none=True)
        return general.model_copy(update=own)


def load_cluster(path: Path | None) -> ClusterConfig:
    """Read ``cluster.yaml``; None gives the defaults.

    Raises:
        ConfigError: The file cannot be read, is not YAML, or has an unknown key or a wrong value; names it.
    """
    if path is None:
        return ClusterConfig()
    try:
        return validate(ClusterConfig, read_yaml(path))
    except ConfigError as error:
        cure = error.cure.replace(" or --set", "")
        message = error.message if str(path) in error.message else f"{path}: {error.message}"
        raise ConfigError(message, cure) from error
