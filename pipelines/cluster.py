"""What the pipeline needs of a cluster: images, GPUs, memory, where its pods may run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import yaml
from kfp import dsl, kubernetes
from pydantic import Field

from components.images import PIPELINE_IMAGE
from slicewise.config import Section, validate
from slicewise.errors import ConfigError

CHECKPOINTS = "/checkpoints"


class Resources(Section):
    """CPU and memory of a task, in Kubernetes' units."""

    cpu: str = "2"
    memory: str = "8Gi"


class ClusterConfig(Section):
    """Settings of the compiled pipeline.

    Attributes:
        image: The image of every component.
        gpu_type: The resource's name; empty trains on the CPU.
        gpu_count: How many for a training task.
        node_selector: Labels of the nodes for GPU tasks.
        tolerations: Taint keys that GPU tasks tolerate.
        shared_memory: Size of ``/dev/shm`` for training.
        light: Resources of the other tasks.
        heavy: Resources of preprocessing, training, calibration and evaluation.
        retries: How often a failed task is tried again.
        checkpoint_claim: A PersistentVolumeClaim on which training keeps its checkpoints, so that a retried task
            goes on from the last one; empty starts the stage again.
    """

    image: str = PIPELINE_IMAGE
    gpu_type: str = "nvidia.com/gpu"
    gpu_count: Annotated[int, Field(ge=0)] = 1
    node_selector: dict[str, str] = Field(default_factory=dict)
    tolerations: tuple[str, ...] = ("nvidia.com/gpu",)
    shared_memory: str = "2Gi"
    light: Resources = Resources(cpu="1", memory="2Gi")
    heavy: Resources = Resources(cpu="4", memory="16Gi")
    retries: Annotated[int, Field(ge=0)] = 2
    checkpoint_claim: str = ""

    @property
    def checkpoints(self) -> str:
        """The folder of a run's checkpoints on that claim, or nothing."""
        return f"{CHECKPOINTS}/{dsl.PIPELINE_JOB_ID_PLACEHOLDER}" if self.checkpoint_claim else ""


def load_cluster(path: Path | None) -> ClusterConfig:
    """Read ``cluster.yaml``; None gives the defaults.

    Raises:
        ConfigError: The file cannot be read, is not YAML, or has an unknown key; names it.
    """
    if path is None:
        return ClusterConfig()
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path} as YAML", "check the path and the file") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path} holds a {type(value).__name__}", "write it as 'key: value' lines")
    return validate(ClusterConfig, value)


def place(task: dsl.PipelineTask, cluster: ClusterConfig, *, heavy: bool = False, gpu: bool = False) -> None:
    """Apply image, resources, retries and, for GPU tasks, the GPU pool's settings to a task.

    The local runner ignores all of it but the image's name.
    """
    resources = cluster.heavy if heavy else cluster.light
    task.set_container_image(cluster.image)
    task.set_cpu_request(resources.cpu).set_memory_request(resources.memory).set_memory_limit(resources.memory)
    if cluster.retries:
        task.set_retry(cluster.retries, backoff_duration="30s", backoff_factor=2.0)
    if not gpu:
        return
    if cluster.checkpoint_claim:
        kubernetes.mount_pvc(task, pvc_name=cluster.checkpoint_claim, mount_path=CHECKPOINTS)
    kubernetes.empty_dir_mount(task, "shm", "/dev/shm", medium="Memory", size_limit=cluster.shared_memory)
    if cluster.gpu_type and cluster.gpu_count:
        task.set_accelerator_type(cluster.gpu_type).set_accelerator_limit(cluster.gpu_count)
        for label, value in cluster.node_selector.items():
            kubernetes.add_node_selector(task, label, value)
        for key in cluster.tolerations:
            kubernetes.add_toleration(task, key=key, operator="Exists", effect="NoSchedule")
