"""The InferenceService and the overlays against KServe's published schemas and what its webhook wants."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

import pytest
import yaml
from api_servers import CRDS, MANIFESTS

from serving.kserve_cluster import GROUP, IMPLEMENTATIONS
from serving.kserve_manifest import DIGEST_ANNOTATION, RUNTIME, inference_service
from slicewise import __version__
from slicewise.config import ServeConfig

URI = "s3://models/slicewise/3-0123456789ab"


@pytest.fixture(scope="session")
def schemas() -> dict[str, Any]:
    if not CRDS.is_dir():
        pytest.skip("the CRD files (../shared/crds) are not on this machine")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    found = {}
    for plural in ("inferenceservices", "servingruntimes"):
        crd = yaml.load((CRDS / f"{GROUP}_{plural}.yaml").read_text(encoding="utf-8"), loader)
        found[crd["spec"]["names"]["kind"]] = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return found


def check_schema(schemas: dict[str, Any], manifest: dict[str, Any]) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    errors = jsonschema.Draft7Validator(schemas[manifest["kind"]]).iter_errors(manifest)
    assert [error.message for error in errors] == []


def kustomize(overlay: str) -> list[dict[str, Any]]:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    command = ["kubectl", "kustomize", str(MANIFESTS / "overlays" / overlay)]
    built = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert built.returncode == 0, built.stderr[-800:]
    return list(yaml.safe_load_all(built.stdout))


def by_kind(objects: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    return next(item for item in objects if item["kind"] == kind)


@pytest.mark.parametrize("mode", ["standard", "serverless"])
def test_manifest_is_what_the_schema_and_the_webhook_want(mode: str, schemas: dict[str, Any]) -> None:
    manifest = inference_service(ServeConfig.model_validate({"deployment_mode": mode}), URI, "0" * 64)
    check_schema(schemas, manifest)
    predictor = manifest["spec"]["predictor"]
    assert not IMPLEMENTATIONS & predictor.keys(), "KServe's webhook takes exactly one implementation"
    assert predictor["model"]["modelFormat"] == {"name": "slicewise"}
    assert predictor["model"]["storageUri"] == URI
    assert [item["name"] for item in manifest["spec"]["transformer"]["containers"]] == ["kserve-container"]
    assert manifest["metadata"]["annotations"][DIGEST_ANNOTATION] == "0" * 64


def test_base_is_the_default_manifest() -> None:
    written = yaml.safe_load((MANIFESTS / "base" / "inferenceservice.yaml").read_text(encoding="utf-8"))
    made = inference_service(ServeConfig(), written["spec"]["predictor"]["model"]["storageUri"], "")
    assert written["spec"] == made["spec"]


@pytest.mark.parametrize("overlay", ["minimal", "gpu"])
def test_overlays_build_and_fit_the_schemas(overlay: str, schemas: dict[str, Any]) -> None:
    objects = kustomize(overlay)
    service, runtime = by_kind(objects, "InferenceService"), by_kind(objects, "ServingRuntime")
    for manifest in (service, runtime):
        check_schema(schemas, manifest)
        assert manifest["metadata"]["namespace"] == "slicewise"
        assert f"{GROUP}/server-type" not in str(manifest)
    predictor = service["spec"]["predictor"]
    assert predictor["model"]["runtime"] == runtime["metadata"]["name"] == RUNTIME
    assert not IMPLEMENTATIONS & predictor.keys()
    formats = [entry["name"] for entry in runtime["spec"]["supportedModelFormats"]]
    assert predictor["model"]["modelFormat"]["name"] in formats
    assert predictor["model"]["protocolVersion"] in runtime["spec"]["protocolVersions"]
    assert predictor["serviceAccountName"] == by_kind(objects, "ServiceAccount")["metadata"]["name"]
    gpus = predictor["model"]["resources"]["limits"].get("nvidia.com/gpu")
    assert gpus == ("1" if overlay == "gpu" else None)
    assert bool(predictor.get("tolerations")) == (overlay == "gpu")


@pytest.mark.parametrize("overlay", ["minimal", "gpu"])
def test_containers_are_restricted(overlay: str) -> None:
    objects = kustomize(overlay)
    containers = by_kind(objects, "ServingRuntime")["spec"]["containers"]
    containers += by_kind(objects, "InferenceService")["spec"]["transformer"]["containers"]
    assert len(containers) == 2
    for container in containers:
        security = container["securityContext"]
        assert security["runAsNonRoot"]
        assert security["runAsUser"] > 0
        assert security["readOnlyRootFilesystem"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"]
        assert container["image"].rpartition(":")[2].startswith(__version__)
