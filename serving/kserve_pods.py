"""What the pods behind an InferenceService say.

KServe may call it ready while they crash, and hides why they do not start.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from serving.kserve_cluster import ASK_S, Cluster
from serving.kserve_manifest import DIGEST_ANNOTATION, SERVICE_ACCOUNT
from slicewise.config import ServeConfig

OWNER_LABEL = "serving.kserve.io/inferenceservice"
INITIALIZER = "storage-initializer"
IMAGE = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
SETTINGS = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
CRASHED = "CrashLoopBackOff"
MANY_RESTARTS = 3
BLIND = (403, 404)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fault:
    """Something that keeps pods from working and seldom heals by itself.

    Attributes:
        message: What is wrong, naming pod and container.
        cure: What to do about it.
    """

    message: str
    cure: str


def find_fault(cluster: Cluster, digest: str) -> Fault | None:
    """The first fault of the pods and deployments that run a bundle; None also where we may not look.

    Args:
        cluster: The InferenceService.
        digest: The bundle; pods of another one, on their way out, do not count.
    """
    from kubernetes.client import AppsV1Api, CoreV1Api  # type: ignore[import-untyped]

    api, config = cluster.client.api_instance.api_client, cluster.config
    pods = _list(CoreV1Api(api).list_namespaced_pod, config)
    faults = [fault for pod in pods if _runs(pod, digest) for fault in _pod_faults(pod, config)]
    if not faults and not pods:
        deployments = _list(AppsV1Api(api).list_namespaced_deployment, config)
        faults = [fault for item in deployments for fault in _deployment_faults(item)]
    return next(iter(faults), None)


def text_fault(text: str, namespace: str) -> Fault | None:
    """The fault that a condition's message tells of, where it is one that is known."""
    if "exceeded quota" in text:
        return Fault(text, f"free or raise the quota: kubectl -n {namespace} describe quota")
    if any(word in text for word in IMAGE):
        return Fault(text, _IMAGE_CURE)
    if "secret" in text and "not found" in text:
        return Fault(text, f"make the secret in namespace {namespace}, or name the right one")
    return None


_IMAGE_CURE = "check the image's name and tag, that it was pushed, and imagePullSecrets of the service account"


def _list(call: Any, config: ServeConfig) -> list[dict[str, Any]]:
    from kubernetes.client import ApiException

    selector = f"{OWNER_LABEL}={config.model_name}"
    try:
        # Plain data: a cluster newer than the client sends fields that its classes refuse.
        answer = call(config.namespace, label_selector=selector, _preload_content=False, _request_timeout=ASK_S)
    except ApiException as error:
        if error.status not in BLIND:
            raise
        log.debug("may not look at %s: %s", call.__name__, error.reason)
        return []
    return list(json.loads(answer.data).get("items") or [])


def _runs(pod: Mapping[str, Any], digest: str) -> bool:
    metadata = pod["metadata"]
    named = (metadata.get("annotations") or {}).get(DIGEST_ANNOTATION, digest)
    return named == digest and not metadata.get("deletionTimestamp")


def _pod_faults(pod: Mapping[str, Any], config: ServeConfig) -> Iterator[Fault]:
    status, name = pod.get("status") or {}, pod["metadata"]["name"]
    for entry in status.get("conditions") or []:
        if entry["type"] == "PodScheduled" and entry["status"] == "False":
            detail = entry.get("message") or entry.get("reason") or "no reason given"
            yield Fault(f"pod {name} finds no node: {detail}", "add or free nodes, or lower what the pod asks for")
    for entry in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        if fault := _container_fault(name, entry, config):
            yield fault


def _container_fault(pod: str, entry: Mapping[str, Any], config: ServeConfig) -> Fault | None:
    state = entry.get("state") or {}
    waiting, place = state.get("waiting") or {}, f"container {entry['name']} of pod {pod}"
    reason = str(waiting.get("reason") or "")
    detail = f"{reason}: {waiting['message']}" if waiting.get("message") else reason
    if reason in IMAGE:
        return Fault(f"{place} has no image ({entry.get('image', '')}): {detail}", _IMAGE_CURE)
    if reason in SETTINGS:
        cure = f"make what it names (a secret or config map) in namespace {config.namespace}, or correct the name"
        return Fault(f"{place} cannot be made: {detail}", cure)
    if reason == CRASHED or (not entry.get("ready", False) and int(entry.get("restartCount") or 0) >= MANY_RESTARTS):
        return _crash(pod, place, entry, config)
    return None


def _crash(pod: str, place: str, entry: Mapping[str, Any], config: ServeConfig) -> Fault:
    last = (entry.get("lastState") or {}).get("terminated") or {}
    words = (last.get("reason"), f"exit code {last['exitCode']}" if "exitCode" in last else "", last.get("message"))
    why = ", ".join(str(word).strip() for word in words if word) or "no reason given"
    message = f"{place} ends again and again ({why})"
    if last.get("reason") == "OOMKilled":
        return Fault(message, "raise its memory limit")
    see = f"see 'kubectl -n {config.namespace} logs {pod} -c {entry['name']} --previous'"
    if entry["name"] == INITIALIZER:
        return Fault(message, f"check the storage's secret of service account {SERVICE_ACCOUNT}; {see}")
    return Fault(message, see)


def _deployment_faults(deployment: Mapping[str, Any]) -> Iterator[Fault]:
    """Why there are no pods at all: a quota, a policy, a missing service account."""
    for entry in (deployment.get("status") or {}).get("conditions") or []:
        if entry["type"] == "ReplicaFailure" and entry["status"] == "True":
            told, namespace = str(entry.get("message") or ""), deployment["metadata"]["namespace"]
            known = text_fault(told, namespace)
            cure = known.cure if known else f"see 'kubectl -n {namespace} get events'"
            yield Fault(f"deployment {deployment['metadata']['name']} gets no pods: {told}", cure)
