"""The search of ``slicewise tune`` as a Katib ``Experiment``: the same space, each trial a pod of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from pipelines.cluster import CHECKPOINTS, ClusterConfig
from slicewise.config import Config
from slicewise.config.tune import Choice, Range, TuneConfig, check_space, takes_whole_numbers
from slicewise.files import write_text

NAME = "slicewise-tune"
METRIC = "score"
# Katib's word for the sampler and the pruner.
ALGORITHMS = {"tpe": "tpe", "random": "random"}
MODULE = "pipelines.katib_trial"
CLAIM = "slicewise-checkpoints"


def experiment(tune: TuneConfig, config: Config, cluster: ClusterConfig, parallel: int = 2) -> dict[str, Any]:
    """The Experiment of a search.

    Store and split are read from the folder ``tune`` of the checkpoint claim, where ``slicewise preprocess`` and
    ``slicewise split`` are to have put them.

    Args:
        tune: The space, and how it is searched.
        config: What the trials change; its mode is the trials'.
        cluster: Image, GPUs, resources and the claim.
        parallel: How many trials run at a time.

    Raises:
        ConfigError: A key of the space is unknown, or takes no such value.
    """
    check_space(tune, config)
    spec = {
        "objective": {"type": "maximize", "objectiveMetricName": METRIC},
        "algorithm": {"algorithmName": ALGORITHMS[tune.sampler]},
        "maxTrialCount": tune.trials,
        "parallelTrialCount": min(parallel, tune.trials),
        "maxFailedTrialCount": max(1, tune.trials // 4),
        "metricsCollectorSpec": {"collector": {"kind": "StdOut"}},
        "parameters": [_parameter(key, dimension, config) for key, dimension in tune.space.items()],
        "trialTemplate": _trial(tune, config, cluster),
    }
    if tune.pruner == "median":
        settings = {"min_trials_required": tune.pruner_trials, "start_step": max(1, tune.pruner_epochs)}
        spec["earlyStopping"] = {
            "algorithmName": "medianstop",
            "algorithmSettings": [{"name": name, "value": str(value)} for name, value in settings.items()],
        }
    return {
        "apiVersion": "kubeflow.org/v1beta1",
        "kind": "Experiment",
        "metadata": {"name": NAME, "labels": {"app.kubernetes.io/part-of": "slicewise"}},
        "spec": spec,
    }


def write_experiment(tune: TuneConfig, config: Config, cluster: ClusterConfig, out: Path) -> None:
    """Write the Experiment as YAML.

    Raises:
        ConfigError: As ``experiment`` does.
    """
    text = yaml.safe_dump(experiment(tune, config, cluster), sort_keys=False, width=120)
    write_text(out, "# Made by 'slicewise compile --katib'; docs/pipeline.md says what it needs.\n" + text)


def _parameter(key: str, dimension: Range | Choice, config: Config) -> dict[str, Any]:
    if isinstance(dimension, Choice):
        listed = [value if isinstance(value, str) else json.dumps(value) for value in dimension.choices]
        return {"name": key, "parameterType": "categorical", "feasibleSpace": {"list": listed}}
    space = {"min": str(dimension.low), "max": str(dimension.high)}
    if dimension.log:
        space["distribution"] = "logUniform"
    whole = takes_whole_numbers(config, key, dimension)
    return {"name": key, "parameterType": "int" if whole else "double", "feasibleSpace": space}


def _trial(tune: TuneConfig, config: Config, cluster: ClusterConfig) -> dict[str, Any]:
    # Katib's own names know no dots.
    names = {key: key.replace(".", "-").replace("_", "-") for key in tune.space}
    words = [word for key, name in names.items() for word in ("--set", f"{key}=${{trialParameters.{name}}}")]
    data = f"{CHECKPOINTS}/tune"
    command = ["python", "-m", MODULE, "--store", f"{data}/store", "--split", f"{data}/split", "--mode", config.mode]
    command += ["--stages", ",".join(tune.stages), *words]
    return {
        "primaryContainerName": "trial",
        "trialParameters": [{"name": name, "reference": key} for key, name in names.items()],
        "trialSpec": {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "spec": {"backoffLimit": 1, "template": _pod(command, cluster)},
        },
    }


def _pod(command: list[str], cluster: ClusterConfig) -> dict[str, Any]:
    settings = cluster.settings_of("train")
    limits = {"memory": settings.memory}
    if cluster.has_gpu:
        limits[cluster.gpu_type] = str(cluster.gpu_count)
    user = {"runAsNonRoot": True, "runAsUser": cluster.run_as_user, "runAsGroup": cluster.run_as_group}
    container = {
        "name": "trial",
        "image": cluster.image_of("train"),
        "imagePullPolicy": cluster.image_pull_policy,
        "command": command,
        "resources": {"requests": {"cpu": settings.cpu, "memory": settings.memory}, "limits": limits},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "shared", "mountPath": CHECKPOINTS}, {"name": "shm", "mountPath": "/dev/shm"}],
    }
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "securityContext": user | {"fsGroup": cluster.run_as_group, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": [
            {"name": "shared", "persistentVolumeClaim": {"claimName": cluster.checkpoint_claim or CLAIM}},
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": cluster.shared_memory}},
        ],
    }
    if cluster.has_gpu:
        spec |= {"tolerations": [item.kubernetes() for item in cluster.tolerations]}
        spec |= {"nodeSelector": dict(cluster.node_selector)} if cluster.node_selector else {}
    # Katib's injected collector reads the log; Istio's would keep the Job from ending.
    return {"metadata": {"annotations": {"sidecar.istio.io/inject": "false"}}, "spec": spec}
