"""A TrainJob in the words of Kubeflow Trainer's SDK."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from components.train.trainjob_settings import TrainJobSettings

MODULE = "components.train.worker"
# As the trainer's job and container are called in every runtime.
NODE = "node"
VOLUME = "shared"


def make_trainer(settings: TrainJobSettings) -> Any:
    """The SDK's ``CustomTrainerContainer``: our own image on so many machines."""
    from kubeflow.trainer import CustomTrainerContainer

    return CustomTrainerContainer(
        image=settings.image, num_nodes=settings.nodes, resources_per_node=dict(settings.resources) or None
    )


def make_options(name: str, job: Path, settings: TrainJobSettings) -> list[Any]:
    """Name, command, and what is put on top of the runtime: the volume and where the pods may run."""
    from kubeflow.trainer.options import (
        ActiveDeadlineSeconds,
        JobSetSpecPatch,
        JobSetTemplatePatch,
        JobSpecPatch,
        JobTemplatePatch,
        Labels,
        Name,
        PodTemplatePatch,
        ReplicatedJobPatch,
        RuntimePatch,
        TrainerArgs,
        TrainerCommand,
        TrainingRuntimeSpecPatch,
    )

    pod = PodTemplatePatch(spec=_pod(settings))
    node = ReplicatedJobPatch(name=NODE, template=JobTemplatePatch(spec=JobSpecPatch(template=pod)))
    jobs = JobSetTemplatePatch(spec=JobSetSpecPatch(replicated_jobs=[node]))
    options = [
        Name(name),
        Labels({"app.kubernetes.io/part-of": "slicewise"}),
        # Trainer's environment says how many nodes there are and where the first one is.
        TrainerCommand(["torchrun", f"--nproc-per-node={settings.processes}"]),
        TrainerArgs(["-m", MODULE, str(job)]),
        RuntimePatch(training_runtime_spec=TrainingRuntimeSpecPatch(template=jobs)),
    ]
    return [*options, ActiveDeadlineSeconds(settings.timeout_s)] if settings.timeout_s else options


def _pod(settings: TrainJobSettings) -> Any:
    from kubeflow.trainer.options import ContainerPatch, PodSpecPatch

    mount = {"name": VOLUME, "mountPath": settings.mount}
    return PodSpecPatch(
        service_account_name=settings.service_account or None,
        volumes=[{"name": VOLUME, "persistentVolumeClaim": {"claimName": settings.claim}}],
        containers=[ContainerPatch(name=NODE, env=list(settings.env) or None, volume_mounts=[mount])],
        image_pull_secrets=[{"name": secret} for secret in settings.image_pull_secrets] or None,
        node_selector=dict(settings.node_selector) or None,
        affinity=dict(settings.affinity) or None,
        tolerations=list(settings.tolerations) or None,
    )
