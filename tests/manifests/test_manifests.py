"""Every overlay against the published schemas, and the rules that only KServe's controller and Knative know."""

from __future__ import annotations

import copy
import importlib
from functools import cache
from typing import Any

import pytest
import yaml
from built import OVERLAYS, ROOT, SERVING, SHARED, built, of_kind

from slicewise import __version__

VERSION = "1.33"
CRDS = SHARED / "crds"
FORBIDDEN = {"clusterrole", "clusterrolebinding", "secret"}


@cache
def custom_schemas() -> dict[tuple[str, str], dict[str, Any]]:
    """By apiVersion and kind."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    found = {}
    for path in sorted(CRDS.glob("*.yaml")):
        spec = yaml.load(path.read_text(encoding="utf-8"), loader)["spec"]
        for version in spec["versions"]:
            key = (f"{spec['group']}/{version['name']}", spec["names"]["kind"])
            found[key] = version["schema"]["openAPIV3Schema"]
    return found


def faults(manifest: dict[str, Any]) -> list[str]:
    """What the kind's schema says; fields that it does not know are faults too.

    Raises:
        SchemaNotFoundError: No schema is known for the kind.
    """
    validate = pytest.importorskip("kubernetes_validate")
    jsonschema = pytest.importorskip("jsonschema")
    schema = custom_schemas().get((manifest["apiVersion"], manifest["kind"]))
    if schema is None:
        try:
            validate.validate(manifest, VERSION, strict=True)
        except validate.ValidationError as error:
            return [error.message]
        return []
    errors = jsonschema.Draft7Validator(strict(schema)).iter_errors(manifest)
    return [f"{'/'.join(map(str, error.path))}: {error.message[:300]}" for error in errors]


def strict(schema: dict[str, Any], root: bool = True) -> dict[str, Any]:
    """The schema with unknown fields forbidden, as server-side field validation forbids them."""
    made = dict(schema)
    if "properties" in schema:
        made["properties"] = {key: strict(value, False) for key, value in schema["properties"].items()}
        if root:
            made["properties"]["metadata"] = {"type": "object"}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            made.setdefault("additionalProperties", False)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            made[key] = strict(schema[key], False)
    return made


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_overlay_fits_the_schemas(overlay: str) -> None:
    if not CRDS.is_dir():
        pytest.skip("the CRD files (../shared/crds) are not on this machine")
    objects = built(overlay)
    assert {f"{item['kind']}/{item['metadata']['name']}": faults(item) for item in objects if faults(item)} == {}
    names = [(item["kind"], item["metadata"].get("namespace"), item["metadata"]["name"]) for item in objects]
    assert len(set(names)) == len(names)


def test_wrong_manifests_are_seen() -> None:
    if not CRDS.is_dir():
        pytest.skip("the CRD files (../shared/crds) are not on this machine")
    validate = pytest.importorskip("kubernetes_validate")
    service = copy.deepcopy(of_kind(built("minimal"), "InferenceService")[0])
    service["spec"]["predictor"]["minReplica"] = 1
    assert any("minReplica" in fault for fault in faults(service))
    policy = copy.deepcopy(of_kind(built("minimal"), "NetworkPolicy")[0])
    policy["spec"]["podSelectors"] = {}
    assert any("podSelectors" in fault for fault in faults(policy))
    with pytest.raises(validate.SchemaNotFoundError):
        faults({"apiVersion": "example.com/v1", "kind": "Unknown", "metadata": {"name": "x"}})


@cache
def implementations() -> set[str]:
    """Every way of the SDK to name a predictor: whatever has a store, and containers of one's own."""
    models = importlib.import_module("kserve.models")
    types = {name: getattr(models, kind, None) for name, kind in models.V1beta1PredictorSpec.openapi_types.items()}
    return {name for name, kind in types.items() if "storage_uri" in getattr(kind, "openapi_types", {})} | {
        "containers"
    }


@pytest.mark.parametrize("overlay", SERVING)
def test_rules_of_kserves_webhook(overlay: str) -> None:
    objects = built(overlay)
    runtimes = {item["metadata"]["name"]: item["spec"] for item in of_kind(objects, "ServingRuntime")}
    services = of_kind(objects, "InferenceService")
    assert services
    for service in services:
        predictor = service["spec"]["predictor"]
        assert implementations() & predictor.keys() == {"model"}, "exactly one predictor implementation"
        runtime = runtimes[predictor["model"]["runtime"]]
        formats = [entry["name"] for entry in runtime["supportedModelFormats"]]
        assert predictor["model"]["modelFormat"]["name"] in formats
        assert predictor["model"]["protocolVersion"] in runtime["protocolVersions"]
        for part in (predictor, service["spec"]["transformer"]):
            assert 0 <= part["minReplicas"] <= part["maxReplicas"]
            assert part["maxReplicas"] > 0
            assert "logger" not in part, "payloads are patients' pictures: never logged"
        accounts = [item["metadata"]["name"] for item in of_kind(objects, "ServiceAccount")]
        assert predictor["serviceAccountName"] in accounts
        assert "serving.kserve.io/server-type" not in str(service)


@pytest.mark.parametrize("overlay", ["serverless", "canary-serverless"])
def test_knative_gets_one_port_and_zero_replicas(overlay: str) -> None:
    objects = built(overlay)
    service, runtime = of_kind(objects, "InferenceService")[0], of_kind(objects, "ServingRuntime")[0]
    assert service["metadata"]["annotations"]["serving.kserve.io/deploymentMode"] == "Knative"
    for container in (*runtime["spec"]["containers"], *service["spec"]["transformer"]["containers"]):
        assert len(container["ports"]) == 1
    assert service["spec"]["predictor"]["minReplicas"] == service["spec"]["transformer"]["minReplicas"] == 0
    assert "exec" in runtime["spec"]["containers"][0]["readinessProbe"]
    assert service["spec"]["predictor"].get("canaryTrafficPercent") == (
        10 if overlay == "canary-serverless" else None
    )


def test_canary_splits_between_services_that_are_there() -> None:
    objects = built("canary")
    stores = {
        item["metadata"]["name"]: item["spec"]["predictor"]["model"]["storageUri"]
        for item in of_kind(objects, "InferenceService")
    }
    steps = of_kind(objects, "InferenceGraph")[0]["spec"]["nodes"]["root"]["steps"]
    assert {step["serviceName"] for step in steps} == stores.keys()
    assert len(set(stores.values())) == len(stores) == 2
    assert sum(step["weight"] for step in steps) == 100
    for policy in of_kind(objects, "NetworkPolicy"):
        assert set(policy["spec"]["podSelector"]["matchExpressions"][0]["values"]) == stores.keys()


def test_grpc_is_agreed_on_by_both_ends() -> None:
    objects = built("gateway")
    service, runtime = of_kind(objects, "InferenceService")[0], of_kind(objects, "ServingRuntime")[0]
    wanted = {"SLICEWISE_BACKEND": "torchserve-grpc", "SLICEWISE_TORCHSERVE_GRPC_PORT": "7070"}
    for entries in (
        service["spec"]["predictor"]["model"]["env"],
        service["spec"]["transformer"]["containers"][0]["env"],
    ):
        assert wanted.items() <= {entry["name"]: entry["value"] for entry in entries}.items()
    assert 7070 in [port["containerPort"] for port in runtime["spec"]["containers"][0]["ports"]]
    policies = {item["metadata"]["name"]: item["spec"] for item in of_kind(objects, "NetworkPolicy")}
    for ports in (
        policies["slicewise-gateway"]["egress"][0]["ports"],
        policies["slicewise-predictor"]["ingress"][0]["ports"],
    ):
        assert 7070 in [port["port"] for port in ports]


def pods(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Pod specifications of the services; the runtime's containers count to the predictors'."""
    runtime = of_kind(objects, "ServingRuntime")[0]["spec"]
    found = []
    for service in of_kind(objects, "InferenceService"):
        predictor, gateway = service["spec"]["predictor"], service["spec"]["transformer"]
        found.append(predictor | {"containers": runtime["containers"]})
        found.append(gateway)
    return found


@pytest.mark.parametrize("overlay", SERVING)
def test_pods_meet_the_restricted_standard(overlay: str) -> None:
    objects = built(overlay)
    assert (
        of_kind(objects, "Namespace")[0]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    )
    for pod in pods(objects):
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in (*pod["containers"], *pod.get("initContainers", [])):
            security = container["securityContext"]
            assert security["runAsUser"] == 10001
            assert security["readOnlyRootFilesystem"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert {"requests", "limits"} <= container["resources"].keys()
            assert container["image"].rpartition(":")[2].startswith(__version__)
        for volume in pod.get("volumes", []):
            assert "hostPath" not in volume
    gateway = of_kind(objects, "InferenceService")[0]["spec"]["transformer"]
    assert {"name": "tmp", "emptyDir": {"sizeLimit": "4Gi"}} in gateway["volumes"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_rights_are_named_one_by_one(overlay: str) -> None:
    objects = built(overlay)
    assert not [item["kind"] for item in objects if item["kind"].lower() in FORBIDDEN]
    for role in of_kind(objects, "Role"):
        for rule in role["rules"]:
            assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]
            assert "secrets" not in rule["resources"]


def test_docs_name_every_overlay() -> None:
    text = (ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8")
    assert [name for name in OVERLAYS if f"| `{name}` |" not in text] == []
