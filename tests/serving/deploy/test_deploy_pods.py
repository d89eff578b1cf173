"""What a cluster with pods, quotas and rights refuses or hides: a real kube-apiserver whose nodes the test plays."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from api_servers import MOMENT, Controller, wait_for, with_server
from deploying import deploy, states, volume_config
from models import Model
from shared_server import kubectl

from serving.deploy_state import deployment_status
from serving.kserve_cluster import STOP_ANNOTATION
from serving.kserve_manifest import DIGEST_ANNOTATION
from serving.kserve_pods import OWNER_LABEL, text_fault
from serving.kserve_target import deploy_inference_service
from serving.ports import free_port
from slicewise.config import ServeConfig
from slicewise.errors import ServerError
from slicewise.files import read_json

WAITING = "CrashLoopBackOff"


@pytest.fixture
def config(whole_controller: Controller, tmp_path: Path) -> ServeConfig:
    # A quarter of timeout_s is how long a fault may last.
    return volume_config(whole_controller.namespace, tmp_path / "claim").model_copy(update={"timeout_s": 4})


class Node:
    """Makes the pods of an InferenceService and says how they are."""

    def __init__(self, core: Any, namespace: str) -> None:
        self.core = core
        self.namespace = namespace

    def pod(self, name: str, digest: str, status: dict[str, Any]) -> None:
        metadata = {"name": name, "labels": {OWNER_LABEL: "slicewise"}, "annotations": {DIGEST_ANNOTATION: digest}}
        spec = {"containers": [{"name": "kserve-container", "image": "registry.example/predictor:1"}]}
        self.core.create_namespaced_pod(self.namespace, {"metadata": metadata, "spec": spec})
        self.core.patch_namespaced_pod_status(name, self.namespace, {"status": status})

    def says(self, container: str = "kserve-container", init: bool = False, **entry: Any) -> dict[str, Any]:
        shared = {"name": container, "image": "registry.example/predictor:1", "imageID": "", "ready": False}
        return {"initContainerStatuses" if init else "containerStatuses": [shared | {"restartCount": 0} | entry]}


@pytest.fixture
def node(core_api: Any, whole_controller: Controller) -> Node:
    return Node(core_api, whole_controller.namespace)


def crashed(reason: str, code: int, message: str = "") -> dict[str, Any]:
    ended = {"reason": reason, "exitCode": code, "message": message, "startedAt": MOMENT, "finishedAt": MOMENT}
    return {
        "restartCount": 4,
        "state": {"waiting": {"reason": WAITING, "message": "back-off 1m20s restarting failed container"}},
        "lastState": {"terminated": ended},
    }


def waiting(reason: str, message: str) -> dict[str, Any]:
    return {"state": {"waiting": {"reason": reason, "message": message}}}


FAULTS = {
    "image": (
        {"entry": waiting("ImagePullBackOff", 'Back-off pulling image "registry.example/predictor:1"')},
        r"container kserve-container of pod p has no image \(registry\.example/predictor:1\): ImagePullBackOff: Back",
        "imagePullSecrets",
    ),
    "secret": (
        {"entry": waiting("CreateContainerConfigError", 'secret "slicewise-storage" not found')},
        r'kserve-container of pod p cannot be made: CreateContainerConfigError: secret "slicewise-storage" not',
        "make what it names (a secret or config map) in namespace slicewise-test-",
    ),
    "crash": (
        {"entry": crashed("Error", 2, "error: unrecognized arguments: --http_port")},
        r"kserve-container of pod p ends again and again \(Error, exit code 2, error: unrecognized arguments",
        "logs p -c kserve-container --previous",
    ),
    "memory": (
        {"entry": crashed("OOMKilled", 137)},
        r"ends again and again \(OOMKilled, exit code 137\)",
        "raise its memory limit",
    ),
    "download": (
        {"container": "storage-initializer", "init": True, "entry": crashed("Error", 1, "403 Forbidden")},
        r"container storage-initializer of pod p ends again and again \(Error, exit code 1, 403 Forbidden\)",
        "check the storage's secret of service account slicewise-models",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_pod_that_cannot_run_is_named_with_a_cure(
    fault: str,
    node: Node,
    whole_controller: Controller,
    models: list[Model],
    config: ServeConfig,
) -> None:
    said, message, cure = FAULTS[fault]
    words = dict(said)
    node.pod("p", models[0].digest, node.says(**words.pop("entry"), **words))
    # KServe says that all is well: it has been seen to do so while pods crashed.
    whole_controller.gateways[models[0].digest] = models[0].gateway_url
    with whole_controller.reconciling(), pytest.raises(ServerError, match=message) as caught:
        deploy(models[0], config)
    assert cure in caught.value.cure
    service = whole_controller.service()
    assert service is not None
    assert service["metadata"]["annotations"][STOP_ANNOTATION] == "true", "nothing goes on trying"
    assert states(config) == {"3": "rejected"}


def test_a_pod_that_finds_no_node(
    node: Node, whole_controller: Controller, models: list[Model], config: ServeConfig, background: ThreadPoolExecutor
) -> None:
    told = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": told}
    node.pod("p", models[0].digest, {"phase": "Pending", "conditions": [condition]})
    with pytest.raises(ServerError, match=r"pod p finds no node: 0/3 nodes are available: 3 Insufficient nvidia"):
        deploy(models[0], config)


def test_a_fault_that_heals_is_no_failure_and_old_pods_do_not_count(
    node: Node, whole_controller: Controller, models: list[Model], config: ServeConfig, background: ThreadPoolExecutor
) -> None:
    config = config.model_copy(update={"timeout_s": 60})
    node.pod("old", models[1].digest, node.says(**crashed("Error", 1)))
    node.pod("new", models[0].digest, node.says(**waiting("CreateContainerConfigError", 'secret "s" not found')))
    whole_controller.gateways[models[0].digest] = models[0].gateway_url
    with whole_controller.reconciling():
        future = background.submit(deploy, models[0], config)

        def told() -> bool:
            fault = deployment_status(config)["cluster"].get("fault") or ""
            return 'secret "s" not found' in fault

        wait_for(told, "the status does not tell of the fault")
        assert not future.done()
        running = node.says(ready=True, state={"running": {"startedAt": MOMENT}})
        node.core.patch_namespaced_pod_status("new", node.namespace, {"status": running})
        assert future.result(60)["registry_state"] == "serving"


def test_pods_that_a_quota_forbids(
    whole_controller: Controller, models: list[Model], config: ServeConfig, background: ThreadPoolExecutor
) -> None:
    from kubernetes.client import AppsV1Api

    apps, name = AppsV1Api(whole_controller.client), "slicewise-predictor"
    labels = {OWNER_LABEL: "slicewise"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    deployment = {
        "metadata": {"name": name, "labels": labels},
        "spec": {"selector": {"matchLabels": labels}, "template": template},
    }
    apps.create_namespaced_deployment(whole_controller.namespace, deployment)
    told = 'pods "p-1" is forbidden: exceeded quota: all, requested: cpu=1, used: cpu=8, limited: cpu=8'
    condition = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": told}
    apps.patch_namespaced_deployment_status(name, whole_controller.namespace, {"status": {"conditions": [condition]}})
    with pytest.raises(
        ServerError, match="deployment slicewise-predictor gets no pods: .* exceeded quota: all"
    ) as caught:
        deploy(models[0], config)
    assert f"kubectl -n {whole_controller.namespace} describe quota" in caught.value.cure


def test_a_condition_that_tells_of_a_quota_is_not_waited_for(
    whole_controller: Controller, models: list[Model], config: ServeConfig, background: ThreadPoolExecutor
) -> None:
    future = background.submit(deploy, models[0], config)
    service = wait_for(whole_controller.service, "the InferenceService was not created")
    entry = {
        "type": "PredictorReady",
        "status": "False",
        "lastTransitionTime": MOMENT,
        "message": 'Revision failed: pods "x" is forbidden: exceeded quota: all',
    }
    status = {"observedGeneration": service["metadata"]["generation"], "conditions": [entry]}
    whole_controller.patch({"status": status}, status=True)
    with pytest.raises(ServerError, match="PredictorReady is False .*exceeded quota"):
        future.result(60)


def test_an_object_that_a_quota_forbids(
    core_api: Any, whole_controller: Controller, models: list[Model], config: ServeConfig
) -> None:
    hard = {"count/inferenceservices.serving.kserve.io": "0"}
    quota = {"metadata": {"name": "none"}, "spec": {"hard": hard}}
    core_api.create_namespaced_resource_quota(whole_controller.namespace, quota)
    status = {"status": {"hard": hard, "used": {"count/inferenceservices.serving.kserve.io": "0"}}}
    core_api.patch_namespaced_resource_quota_status("none", whole_controller.namespace, status)
    with pytest.raises(ServerError, match=f"quota of namespace {whole_controller.namespace} is used up: .*exceeded"):
        deploy(models[0], config)
    assert whole_controller.service() is None
    assert states(config) == {"3": "rejected"}


@pytest.mark.parametrize(
    ("text", "cure"),
    [
        ('failed to pull: ImagePullBackOff for image "x"', "imagePullSecrets"),
        ('secret "aws" not found', "make the secret in namespace n"),
        ("Waiting for load balancer", None),
    ],
)
def test_known_words_in_a_condition(text: str, cure: str | None) -> None:
    fault = text_fault(text, "n")
    if cure is None:
        assert fault is None
    else:
        assert fault is not None
        assert cure in fault.cure


# --- who may, and whether anybody is there


@pytest.mark.parametrize(
    ("change", "message", "cure"),
    [
        (
            {"users": [{"name": "test", "user": {"token": "expired"}}]},
            "does not accept the credentials",
            "renew the token",
        ),
        (
            {"users": [{"name": "test", "user": {}}]},
            "no permission for InferenceService slicewise",
            "slicewise-deployer",
        ),
        (
            {"clusters": [{"name": "test", "cluster": {"server": "https://127.0.0.1:1"}}]},
            "cannot be reached",
            "the network",
        ),
        ({"contexts": []}, "no cluster is configured", "set KUBECONFIG"),
    ],
    ids=["expired", "nobody", "unreachable", "unconfigured"],
)
def test_a_cluster_that_lets_nobody_in(
    change: dict[str, Any],
    message: str,
    cure: str,
    whole_cluster: Path,
    models: list[Model],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = read_json(whole_cluster)
    names = {"user": given["contexts"][0]["context"]["user"], "cluster": given["contexts"][0]["context"]["cluster"]}
    for kind, entries in change.items():
        for entry in entries:
            entry["name"] = names[kind.removesuffix("s")]
    if "clusters" in change:
        change["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{free_port()}"
    monkeypatch.setenv("KUBECONFIG", str(with_server(whole_cluster, tmp_path / "kubeconfig", **change)))
    config = volume_config("slicewise", tmp_path / "claim")
    with pytest.raises(ServerError, match=message) as caught:
        deploy_inference_service(models[0].bundle.folder, models[0].archive, config)
    assert cure in caught.value.cure
    assert not list((tmp_path / "claim").iterdir()), "nothing was uploaded"


@pytest.mark.parametrize(
    ("verb", "kind", "allowed"),
    [
        ("create", "inferenceservices.serving.kserve.io", "yes"),
        ("patch", "inferenceservices.serving.kserve.io", "yes"),
        ("get", "servingruntimes.serving.kserve.io", "yes"),
        ("list", "pods", "yes"),
        ("list", "deployments.apps", "yes"),
        ("patch", "inferencegraphs.serving.kserve.io", "yes"),
        ("delete", "inferenceservices.serving.kserve.io", "no"),
        ("patch", "servingruntimes.serving.kserve.io", "no"),
        ("create", "pods", "no"),
        ("get", "secrets", "no"),
    ],
)
def test_the_pipeline_may_deploy_and_no_more(whole_cluster: Path, verb: str, kind: str, allowed: str) -> None:
    who = "--as=system:serviceaccount:kubeflow:pipeline-runner"
    assert kubectl(whole_cluster, "auth", "can-i", verb, kind, "-n", "slicewise", who, codes=(0, 1)) == allowed
    assert kubectl(whole_cluster, "auth", "can-i", verb, kind, "-n", "default", who, codes=(0, 1)) == "no"
