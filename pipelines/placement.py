"""A task's place in the cluster: what ``cluster.yaml`` says, through KFP and its Kubernetes extension."""

from __future__ import annotations

from typing import Any

from kfp import dsl, kubernetes

from components.runtime import RUN_ID_VARIABLE
from pipelines.cluster import CHECKPOINTS, GPU, ClusterConfig
from pipelines.cluster_parts import StageSettings

RUN_LABEL = "metadata.labels['pipeline/runid']"


def place(task: dsl.PipelineTask, cluster: ClusterConfig, name: str) -> None:
    """Apply a component's settings to its task.

    Args:
        task: The task.
        cluster: The settings.
        name: The component.
    """
    settings = cluster.settings_of(name)
    task.set_container_image(cluster.image_of(name))
    task.set_caching_options(bool(settings.cache))
    _resources(task, settings)
    _retries(task, cluster, settings)
    _pod(task, cluster, settings)
    _environment(task, cluster, name)
    if name == "download" and cluster.data.claim:
        kubernetes.mount_pvc(task, pvc_name=cluster.data.claim, mount_path=cluster.data.mount)
    if name == "train" and cluster.checkpoint_claim:
        kubernetes.mount_pvc(task, pvc_name=cluster.checkpoint_claim, mount_path=CHECKPOINTS)
    if name in GPU:
        kubernetes.empty_dir_mount(task, "shm", "/dev/shm", medium="Memory", size_limit=cluster.shared_memory)
        # A task that only watches a TrainJob needs no GPU of its own.
        if cluster.has_gpu and not (name == "train" and cluster.train.backend == "trainjob"):
            _gpu(task, cluster, cluster.gpu_count if name == "train" else 1)


def _resources(task: dsl.PipelineTask, settings: StageSettings) -> None:
    task.set_cpu_request(settings.cpu)
    if settings.cpu_limit:
        task.set_cpu_limit(settings.cpu_limit)
    task.set_memory_request(settings.memory).set_memory_limit(settings.memory)


def _retries(task: dsl.PipelineTask, cluster: ClusterConfig, settings: StageSettings) -> None:
    if settings.retries:
        task.set_retry(
            settings.retries,
            backoff_duration=f"{cluster.retry_backoff_s}s",
            backoff_factor=cluster.retry_factor,
            backoff_max_duration=f"{cluster.retry_max_s}s",
        )


def _pod(task: dsl.PipelineTask, cluster: ClusterConfig, settings: StageSettings) -> None:
    kubernetes.set_image_pull_policy(task, cluster.image_pull_policy)
    kubernetes.set_security_context(task, cluster.run_as_user, cluster.run_as_group, run_as_non_root=True)
    if cluster.image_pull_secrets:
        kubernetes.set_image_pull_secrets(task, list(cluster.image_pull_secrets))
    if settings.timeout_minutes:
        kubernetes.set_timeout(task, settings.timeout_minutes * 60)
    for key, value in cluster.labels.items():
        kubernetes.add_pod_label(task, key, value)
    for key, value in cluster.annotations.items():
        kubernetes.add_pod_annotation(task, key, value)


def _environment(task: dsl.PipelineTask, cluster: ClusterConfig, name: str) -> None:
    kubernetes.use_field_path_as_env(task, RUN_ID_VARIABLE, RUN_LABEL)
    for variable, value in (cluster.data.env | cluster.env).items():
        task.set_env_variable(variable, value)
    for secret in cluster.secrets:
        if not secret.stages or name in secret.stages:
            keys = {key: variable for variable, key in secret.env.items()}
            kubernetes.use_secret_as_env(task, secret.name, keys, optional=secret.optional)


def _gpu(task: dsl.PipelineTask, cluster: ClusterConfig, count: int) -> None:
    task.set_accelerator_type(cluster.gpu_type).set_accelerator_limit(count)
    for label, value in cluster.node_selector.items():
        kubernetes.add_node_selector(task, label, value)
    for term in cluster.affinity:
        expressions = [item.model_dump(mode="json") for item in term.expressions]
        kubernetes.add_node_affinity(task, match_expressions=expressions, weight=term.weight)
    for item in cluster.tolerations:
        kubernetes.add_toleration(
            task, key=item.key or None, operator=item.operator, value=item.value, effect=item.effect
        )


def trainjob_section(cluster: ClusterConfig) -> dict[str, Any]:
    """What the train component needs to make a TrainJob (``TrainJobSettings``); empty for training in its pod."""
    if cluster.train.backend == "pod":
        return {}
    settings = cluster.settings_of("train")
    resources = {"cpu": settings.cpu, "memory": settings.memory}
    if cluster.has_gpu:
        resources[cluster.gpu_type] = str(cluster.gpu_count)
    return {
        "namespace": cluster.train.namespace,
        "runtime": cluster.train.runtime,
        "image": cluster.image_of("train"),
        "nodes": cluster.train.nodes,
        "processes": cluster.processes,
        "resources": resources,
        "claim": cluster.checkpoint_claim,
        "mount": CHECKPOINTS,
        "service_account": cluster.service_account,
        "image_pull_secrets": list(cluster.image_pull_secrets),
        "node_selector": dict(cluster.node_selector) if cluster.has_gpu else {},
        "affinity": _node_affinity(cluster) if cluster.has_gpu else {},
        "tolerations": [item.kubernetes() for item in cluster.tolerations] if cluster.has_gpu else [],
        "env": _container_env(cluster),
        "timeout_s": (settings.timeout_minutes or 0) * 60,
    }


def _node_affinity(cluster: ClusterConfig) -> dict[str, Any]:
    """The terms as ``spec.affinity`` of a pod: required ones are alternatives, as Kubernetes and KFP read them."""
    required = [term.kubernetes() for term in cluster.affinity if term.weight is None]
    wished = [{"weight": term.weight, "preference": term.kubernetes()} for term in cluster.affinity if term.weight]
    node: dict[str, Any] = {}
    if required:
        node["requiredDuringSchedulingIgnoredDuringExecution"] = {"nodeSelectorTerms": required}
    if wished:
        node["preferredDuringSchedulingIgnoredDuringExecution"] = wished
    return {"nodeAffinity": node} if node else {}


def _container_env(cluster: ClusterConfig) -> list[dict[str, Any]]:
    plain = [{"name": name, "value": value} for name, value in (cluster.data.env | cluster.env).items()]
    secret = [
        {
            "name": variable,
            "valueFrom": {"secretKeyRef": {"name": item.name, "key": key, "optional": item.optional}},
        }
        for item in cluster.secrets
        if not item.stages or "train" in item.stages
        for variable, key in item.env.items()
    ]
    return [*plain, *secret]
