"""The InferenceService: our gateway as transformer, TorchServe in our own ServingRuntime as predictor."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from slicewise import __version__
from slicewise.config import ServeConfig

API_VERSION = "serving.kserve.io/v1beta1"
RUNTIME = "slicewise-torchserve"
MODEL_FORMAT = "slicewise"
SERVICE_ACCOUNT = "slicewise-models"
GATEWAY_IMAGE = f"ghcr.io/slicewise/gateway:{__version__}"
IMAGE_VARIABLE = "SLICEWISE_GATEWAY_IMAGE"
MODE_ANNOTATION = "serving.kserve.io/deploymentMode"
# As KServe calls them since 0.16 (before: RawDeployment and Serverless).
MODES = {"standard": "Standard", "serverless": "Knative"}
KNATIVE = frozenset({"Knative", "Serverless"})
# With Knative: the predictor's revisions get addresses of their own, at which each can be asked.
TAGS_ANNOTATION = "serving.kserve.io/enable-tag-routing"
CANARY_PERCENT = "canaryTrafficPercent"
# With Knative: what the object was before its candidate, so that any later process can put it back.
FORMER_ANNOTATION = "slicewise.dev/former"
DIGEST_ANNOTATION = "slicewise.dev/bundle-digest"
USER = 10001
PART_OF = "app.kubernetes.io/part-of"

_POD_SECURITY = {
    "runAsNonRoot": True,
    "runAsUser": USER,
    "runAsGroup": USER,
    "fsGroup": USER,
    "seccompProfile": {"type": "RuntimeDefault"},
}
_CONTAINER_SECURITY = {
    "runAsNonRoot": True,
    "runAsUser": USER,
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "privileged": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


def inference_service(config: ServeConfig, storage_uri: str, digest: str) -> dict[str, Any]:
    """The whole manifest.

    Args:
        config: Name, namespace, workers and limits.
        storage_uri: The model store of this very version.
        digest: The bundle's digest; a new one makes new pods.
    """
    annotations = {MODE_ANNOTATION: MODES[config.deployment_mode], DIGEST_ANNOTATION: digest}
    if config.deployment_mode == "serverless":
        annotations[TAGS_ANNOTATION] = "true"
    return {
        "apiVersion": API_VERSION,
        "kind": "InferenceService",
        "metadata": {
            "name": config.model_name,
            "namespace": config.namespace,
            "labels": {"app.kubernetes.io/name": config.model_name, PART_OF: "slicewise"},
            "annotations": annotations,
        },
        "spec": {"predictor": _predictor(config, storage_uri), "transformer": _transformer(config)},
    }


def changes(existing: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """What a new model changes in an InferenceService that is there, as a merge patch.

    Whatever an operator has set (replicas, resources, GPUs, tolerations, the gateway's image) stays. So does the
    deployment mode, which KServe does not let anybody change.

    Args:
        existing: The object in the cluster.
        wanted: What ``inference_service`` makes.
    """
    metadata = wanted["metadata"]
    annotations = {key: value for key, value in metadata["annotations"].items() if key != MODE_ANNOTATION}
    if FORMER_ANNOTATION in (existing["metadata"].get("annotations") or {}):
        annotations.setdefault(FORMER_ANNOTATION, None)
    model = dict(wanted["spec"]["predictor"]["model"])
    present = existing["spec"]["predictor"].get("model") or {}
    if "resources" in present:
        del model["resources"]
    model["env"] = _merged(present.get("env"), model["env"])
    # The version makes the server refuse the patch when somebody was faster.
    version = existing["metadata"]["resourceVersion"]
    return {
        "apiVersion": wanted["apiVersion"],
        "kind": wanted["kind"],
        "metadata": {
            "name": metadata["name"],
            "resourceVersion": version,
            "labels": metadata["labels"],
            "annotations": annotations,
        },
        "spec": {
            "predictor": {"model": model, **_changed_share(existing, wanted)},
            "transformer": _changed_transformer(existing, wanted),
        },
    }


def is_serverless(service: Mapping[str, Any]) -> bool:
    """Whether an InferenceService runs on Knative."""
    return (service["metadata"].get("annotations") or {}).get(MODE_ANNOTATION) in KNATIVE


def _changed_share(existing: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, int | None]:
    """The new model's share of the traffic; null gives it all, which matters only where it has another now."""
    share = wanted["spec"]["predictor"].get(CANARY_PERCENT)
    had = existing["spec"]["predictor"].get(CANARY_PERCENT)
    return {} if share is None and had is None else {CANARY_PERCENT: share}


def _changed_transformer(existing: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    ours: dict[str, Any] = wanted["spec"]["transformer"]
    containers = (existing["spec"].get("transformer") or {}).get("containers")
    if not containers:
        return ours
    first = dict(containers[0])
    first["env"] = _merged(first.get("env"), ours["containers"][0]["env"])
    return {"containers": [first, *containers[1:]]}


def _merged(present: list[dict[str, Any]] | None, ours: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Environment entries by name, ours winning."""
    entries = {entry["name"]: entry for entry in [*(present or []), *ours]}
    return list(entries.values())


def _predictor(config: ServeConfig, storage_uri: str) -> dict[str, Any]:
    return {
        "serviceAccountName": SERVICE_ACCOUNT,
        "automountServiceAccountToken": False,
        "securityContext": _POD_SECURITY,
        "minReplicas": 1,
        "maxReplicas": 1,
        "timeout": config.timeout_s,
        "model": {
            "modelFormat": {"name": MODEL_FORMAT},
            "runtime": RUNTIME,
            "protocolVersion": "v2",
            "storageUri": storage_uri,
            "env": _environment(config, ("workers", "max_request_mb", "timeout_s")),
            "resources": _resources("1", "4Gi", "6Gi"),
        },
    }


def _transformer(config: ServeConfig) -> dict[str, Any]:
    return {
        "automountServiceAccountToken": False,
        "securityContext": _POD_SECURITY,
        "minReplicas": 1,
        "maxReplicas": 1,
        "timeout": config.timeout_s,
        "containers": [_gateway(config)],
        "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "4Gi"}}],
    }


def _gateway(config: ServeConfig) -> dict[str, Any]:
    live = {"httpGet": {"path": "/v2/health/live", "port": 8080}}
    # A real, tiny inference: ready means that the model answers.
    ready = {"httpGet": {"path": "/healthz", "port": 8080}, "timeoutSeconds": 15, "periodSeconds": 10}
    return {
        "name": "kserve-container",
        "image": os.environ.get(IMAGE_VARIABLE, GATEWAY_IMAGE),
        "env": [
            {"name": "SLICEWISE_HOST", "value": "0.0.0.0"},
            *_environment(config, ("max_request_mb", "timeout_s", "ui")),
        ],
        # KServe's Service has port 80 for the first of these and its own number for each other; Knative takes one.
        "ports": [
            {"containerPort": 8080, "name": "http1", "protocol": "TCP"},
            {"containerPort": 8081, "name": "grpc", "protocol": "TCP"},
        ][: 1 if config.deployment_mode == "serverless" else 2],
        "startupProbe": live | {"periodSeconds": 2, "failureThreshold": 60},
        "livenessProbe": live | {"timeoutSeconds": 5, "periodSeconds": 10},
        "readinessProbe": ready,
        "resources": _resources("250m", "1Gi", "2Gi"),
        "securityContext": _CONTAINER_SECURITY,
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }


def _environment(config: ServeConfig, names: tuple[str, ...]) -> list[dict[str, Any]]:
    told = {name: getattr(config, name) for name in names}
    # Kubernetes wants strings; yes and no as YAML and our own flags write them.
    words = {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in told.items()}
    return [{"name": f"SLICEWISE_{name.upper()}", "value": word} for name, word in words.items()]


def _resources(cpu: str, memory: str, limit: str) -> dict[str, Any]:
    return {"requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": "2", "memory": limit}}
