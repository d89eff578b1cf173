"""How training on several machines is asked for: what becomes a ``TrainJob`` of Kubeflow Trainer."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from slicewise.config import Count, Section


class TrainJobSettings(Section):
    """One TrainJob; ``pipelines/cluster.py`` makes it from ``cluster.yaml``.

    Attributes:
        namespace: Where the job runs; empty for the namespace of the pod that asks.
        runtime: The TrainingRuntime, or ClusterTrainingRuntime, that it is made from.
        image: The image of its pods.
        nodes: Machines.
        processes: Of each machine; one per GPU.
        resources: Of each machine, in Kubernetes' words: ``cpu``, ``memory``, ``nvidia.com/gpu``.
        claim: The volume that all pods and this one share, mounted at ``mount``.
        mount: Where.
        service_account: Of the job's pods; empty for the namespace's default.
        image_pull_secrets: Names of secrets.
        node_selector: Labels of the nodes.
        affinity: Kubernetes' own words, as ``spec.affinity`` of a pod; empty for none.
        tolerations: Kubernetes' own words, as ``spec.tolerations`` of a pod.
        env: Environment of the training container, in Kubernetes' own words.
        timeout_s: After this many seconds Trainer ends the job; 0 for never.
    """

    namespace: str = ""
    runtime: str = "slicewise-torch"
    image: str
    nodes: Count = 2
    processes: Count = 1
    resources: dict[str, str] = Field(default_factory=dict)
    claim: str
    mount: str
    service_account: str = ""
    image_pull_secrets: tuple[str, ...] = ()
    node_selector: dict[str, str] = Field(default_factory=dict)
    affinity: dict[str, Any] = Field(default_factory=dict)
    tolerations: tuple[dict[str, Any], ...] = ()
    env: tuple[dict[str, Any], ...] = ()
    timeout_s: Annotated[int, Field(ge=0)] = 0
