"""The way into the cluster: storage, manifests, and a real API server with the test as KServe's controller."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from serving.kserve_cluster import GROUP, IMPLEMENTATIONS
from serving.kserve_errors import cluster_errors, is_object_missing
from serving.kserve_manifest import DIGEST_ANNOTATION, RUNTIME, changes, inference_service
from serving.kserve_target import deploy_inference_service
from serving.ports import free_port
from serving.state import StackState
from serving.storage import open_storage
from serving.torchserve.archive import build_archive
from serving.upload import MANIFEST, PROPERTIES
from serving.upload import upload_store as upload_to
from slicewise import __version__
from slicewise.config import ModelConfig, ServeConfig, SliceConfig
from slicewise.errors import BundleError, ConfigError, ServerError
from slicewise.files import read_json
from slicewise.inference.bundle import Bundle, BundleMeta, load_bundle, write_bundle

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared"
CRDS = SHARED / "crds"
CRD_SERVER = SHARED / "bin" / "crd-server"
KUBE_API = SHARED / "bin" / "kube-api"
MANIFESTS = ROOT / "manifests"
BUCKET = "models"
WAIT_S = 60.0
URI = "s3://models/slicewise/3-0123456789ab"


def upload_store(bundle: Bundle, archive: Path, config: ServeConfig) -> str:
    with tempfile.TemporaryDirectory() as work:
        return upload_to(open_storage(config), bundle, archive, config, Path(work))


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + WAIT_S
    while not (found := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.05)
    return found


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


# --- manifests


def test_manifest_is_what_the_schema_and_the_webhook_want(schemas: dict[str, Any]) -> None:
    manifest = inference_service(ServeConfig(), URI, "0" * 64)
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


# --- storage


@pytest.fixture(scope="module")
def s3_url() -> Iterator[str]:
    server = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    running = server.ThreadedMotoServer("127.0.0.1", 0, verbose=True)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def s3(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    import boto3

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_url)
    client = boto3.client("s3")
    client.create_bucket(Bucket=BUCKET)
    yield client
    for item in client.list_objects_v2(Bucket=BUCKET).get("Contents", []):
        client.delete_object(Bucket=BUCKET, Key=item["Key"])
    client.delete_bucket(Bucket=BUCKET)


@pytest.fixture(scope="session")
def archive(bundle_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_archive(bundle_dir, tmp_path_factory.mktemp("store"), ServeConfig())


@pytest.fixture
def config() -> ServeConfig:
    return ServeConfig(storage_uri=f"s3://{BUCKET}/brain/", timeout_s=10)


def puts(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The keys written, in the order in which the server saw them."""
    lines = [record.getMessage() for record in caplog.records if record.name == "werkzeug"]
    return [line.split("PUT ")[1].split()[0].split("?")[0] for line in lines if "PUT " in line]


def test_store_is_uploaded_with_its_manifest_last_and_once(
    s3: Any, bundle_dir: Path, archive: Path, config: ServeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = load_bundle(bundle_dir)
    with caplog.at_level(logging.INFO):
        uri = upload_store(bundle, archive, config)
    assert uri == f"s3://{BUCKET}/brain/3-{bundle.digest[:12]}"
    folder = uri.removeprefix(f"s3://{BUCKET}/")
    names = [PROPERTIES, "model-store/slicewise.mar", MANIFEST]
    sent = puts(caplog)
    assert sent[-1] == f"/{BUCKET}/{folder}/{MANIFEST}"
    assert all(f"/{BUCKET}/{folder}/{name}" in sent for name in names)
    assert s3.list_objects_v2(Bucket=BUCKET, Prefix="brain/incoming/")["KeyCount"] == 0
    stored = s3.get_object(Bucket=BUCKET, Key=f"{folder}/model-store/slicewise.mar")["Body"].read()
    assert stored == archive.read_bytes()
    properties = s3.get_object(Bucket=BUCKET, Key=f"{folder}/{PROPERTIES}")["Body"].read().decode()
    assert "inference_address=http://0.0.0.0:8085\n" in properties
    assert "management_address=http://127.0.0.1:" in properties
    assert "model_store=/mnt/models/model-store\n" in properties

    caplog.clear()
    with caplog.at_level(logging.INFO):
        assert upload_store(bundle, archive, config) == uri
    assert puts(caplog) == []


def test_half_an_upload_is_done_again(
    s3: Any, bundle_dir: Path, archive: Path, config: ServeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = load_bundle(bundle_dir)
    key = f"brain/3-{bundle.digest[:12]}/model-store/slicewise.mar"
    s3.put_object(Bucket=BUCKET, Key=key, Body=archive.read_bytes()[:1000])
    with caplog.at_level(logging.INFO):
        upload_store(bundle, archive, config)
    assert s3.head_object(Bucket=BUCKET, Key=key)["ContentLength"] == archive.stat().st_size
    assert puts(caplog)[-1].endswith(MANIFEST)


@pytest.mark.parametrize("uri", ["", "gs://bucket/x", "s3:///x", "models/slicewise"])
def test_other_storage_is_refused_with_a_cure(uri: str) -> None:
    with pytest.raises(ConfigError, match=r"serve\.storage_uri") as caught:
        open_storage(ServeConfig(storage_uri=uri))
    assert "s3://BUCKET/PREFIX" in caught.value.cure


def test_storage_errors_are_named(
    s3: Any, bundle_dir: Path, archive: Path, config: ServeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = load_bundle(bundle_dir)
    with pytest.raises(ServerError, match="no bucket s3://elsewhere"):
        upload_store(bundle, archive, config.model_copy(update={"storage_uri": "s3://elsewhere/x"}))
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(ServerError, match="s3://models cannot be reached") as caught:
        upload_store(bundle, archive, config)
    assert "AWS_ENDPOINT_URL_S3" in caught.value.cure


def test_missing_credentials_are_named(
    s3: Any, bundle_dir: Path, archive: Path, config: ServeConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(ServerError, match="no credentials for s3://models"):
        upload_store(load_bundle(bundle_dir), archive, config)


# --- the cluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The kubeconfig of a real API server that knows KServe's kinds."""
    if not CRD_SERVER.is_file():
        pytest.skip("the API server for tests (../shared/bin/crd-server) is not on this machine")
    if shutil.which("etcd") is None:
        pytest.skip("etcd is not installed (Debian package etcd-server)")
    work = tmp_path_factory.mktemp("cluster")
    command = [sys.executable, str(CRD_SERVER)]
    started = subprocess.run([*command, "start", str(work)], stderr=subprocess.PIPE, timeout=120, check=False)
    try:
        assert started.returncode == 0, started.stderr.decode()[-800:]
        yield work / "kubeconfig"
    finally:
        subprocess.run([*command, "stop", str(work)], check=True, timeout=60)


class Controller:
    """KServe's part, played by the test: it sees objects and writes their status."""

    def __init__(self, kubeconfig: Path) -> None:
        from kubernetes import client
        from kubernetes import config as settings

        configuration = client.Configuration()
        settings.load_kube_config(str(kubeconfig), client_configuration=configuration)
        self.api = client.CustomObjectsApi(client.ApiClient(configuration))

    def add_runtime(self, namespace: str) -> None:
        path = MANIFESTS / "base" / "servingruntime.yaml"
        runtime = yaml.safe_load(path.read_text(encoding="utf-8"))
        self.api.create_namespaced_custom_object(GROUP, "v1alpha1", namespace, "servingruntimes", runtime)

    def service(self, namespace: str) -> dict[str, Any] | None:
        listed = self.api.list_namespaced_custom_object(GROUP, "v1beta1", namespace, "inferenceservices")
        return next(iter(listed["items"]), None)

    def patch(self, namespace: str, body: dict[str, Any], status: bool = False) -> None:
        call = self.api.patch_namespaced_custom_object
        if status:
            call = self.api.patch_namespaced_custom_object_status
        call(GROUP, "v1beta1", namespace, "inferenceservices", "slicewise", body)

    def say(self, namespace: str, generation: int, ready: str, **more: Any) -> None:
        kinds = ("PredictorReady", "TransformerReady", "Ready")
        moment = "2026-01-01T00:00:00Z"
        conditions = [{"type": kind, "status": ready, "lastTransitionTime": moment} for kind in kinds]
        status = {"observedGeneration": generation, "conditions": conditions} | more
        self.patch(namespace, {"status": status}, status=True)


@pytest.fixture
def controller(cluster: Path, monkeypatch: pytest.MonkeyPatch) -> Controller:
    monkeypatch.setenv("KUBECONFIG", str(cluster))
    return Controller(cluster)


@pytest.fixture
def background() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def result(future: Future[dict[str, Any]]) -> dict[str, Any]:
    return future.result(timeout=WAIT_S)


def test_create_then_update_then_ready(
    controller: Controller,
    s3: Any,
    stack: StackState,
    bundle_dir: Path,
    archive: Path,
    config: ServeConfig,
    background: ThreadPoolExecutor,
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = config.model_copy(update={"namespace": "one"})
    controller.add_runtime("one")
    with caplog.at_level(logging.INFO):
        future = background.submit(deploy_inference_service, bundle_dir, archive, config)
        service = wait_for(lambda: controller.service("one"), "the InferenceService was not created")
        wait_for(lambda: "not looked at by KServe yet" in caplog.text, "no progress is told")
        controller.say("one", 1, "Unknown")
        wait_for(lambda: "PredictorReady is Unknown" in caplog.text, "no progress is told")
        controller.say("one", 1, "True", url=stack.gateway_url)
    served = result(future)
    digest = load_bundle(bundle_dir).digest
    assert served["url"] == stack.gateway_url
    assert served["verified"], "the gateway itself was asked for its digest"
    assert served["created"]
    assert (served["target"], served["digest"]) == ("kserve", digest)
    assert (served["name"], served["namespace"]) == ("slicewise", "one")
    assert service["spec"]["predictor"]["model"]["storageUri"] == served["storage_uri"]

    # What an operator set stays; what a new deployment says comes on top.
    container = service["spec"]["transformer"]["containers"][0] | {"image": "registry.example/gateway:own"}
    operator = {
        "predictor": {"maxReplicas": 3, "model": {"resources": {"limits": {"nvidia.com/gpu": "1"}}}},
        "transformer": {"containers": [container]},
    }
    controller.patch("one", {"spec": operator})
    slower = config.model_copy(update={"timeout_s": 20})
    future = background.submit(deploy_inference_service, bundle_dir, archive, slower)

    def updated() -> dict[str, Any] | None:
        found = controller.service("one")
        return found if found and found["metadata"]["generation"] == 3 else None

    spec = wait_for(updated, "the InferenceService was not updated")["spec"]
    # The status still tells of the first generation: nobody may take that for ready.
    assert not future.done()
    controller.say("one", 3, "True", url=stack.gateway_url)
    assert result(future)["created"] is False
    assert spec["predictor"]["maxReplicas"] == 3
    assert spec["predictor"]["model"]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert spec["transformer"]["containers"][0]["image"] == "registry.example/gateway:own"
    for part in (spec["predictor"]["model"], spec["transformer"]["containers"][0]):
        assert {"name": "SLICEWISE_TIMEOUT_S", "value": "20"} in part["env"]


def test_an_old_model_that_still_answers_is_not_taken_for_the_new(
    controller: Controller,
    s3: Any,
    stack: StackState,
    tmp_path: Path,
    config: ServeConfig,
    background: ThreadPoolExecutor,
) -> None:
    import torch

    from slicewise.model.network import MultiTaskUNet

    torch.manual_seed(8)
    meta = BundleMeta(architecture=ModelConfig(), preprocessing=SliceConfig(), model_version="4")
    write_bundle(tmp_path / "new", MultiTaskUNet(4, ModelConfig()).state_dict(), meta)
    config = config.model_copy(update={"namespace": "two", "timeout_s": 1})
    controller.add_runtime("two")
    archive = build_archive(tmp_path / "new", tmp_path, config)
    future = background.submit(deploy_inference_service, tmp_path / "new", archive, config)
    wait_for(lambda: controller.service("two"), "the InferenceService was not created")
    controller.say("two", 1, "True", url=stack.gateway_url)
    with pytest.raises(ServerError, match=r"not ready after 5 s: .* still serves bundle") as caught:
        result(future)
    assert "kubectl -n two describe inferenceservice slicewise" in caught.value.cure


def test_a_model_that_does_not_load_fails_at_once(
    controller: Controller,
    s3: Any,
    bundle_dir: Path,
    archive: Path,
    config: ServeConfig,
    background: ThreadPoolExecutor,
) -> None:
    config = config.model_copy(update={"namespace": "three"})
    controller.add_runtime("three")
    future = background.submit(deploy_inference_service, bundle_dir, archive, config)
    wait_for(lambda: controller.service("three"), "the InferenceService was not created")
    failure = {"reason": "ModelLoadFailed", "message": "no space left", "exitCode": 1}
    failed = {
        "transitionStatus": "BlockedByFailedLoad",
        "lastFailureInfo": failure,
        "states": {"activeModelState": "", "targetModelState": "FailedToLoad"},
        "copies": {"failedCopies": 1},
    }
    controller.say("three", 1, "False", modelStatus=failed)
    with pytest.raises(ServerError, match="does not load: no space left"):
        result(future)


def test_what_the_cluster_lacks_is_said_before_anything_is_uploaded(
    controller: Controller, s3: Any, bundle_dir: Path, archive: Path, config: ServeConfig
) -> None:
    config = config.model_copy(update={"namespace": "four"})
    with pytest.raises(ServerError, match=f"no ServingRuntime {RUNTIME} in namespace four") as caught:
        deploy_inference_service(bundle_dir, archive, config)
    assert "manifests/overlays/minimal" in caught.value.cure
    assert s3.list_objects_v2(Bucket=BUCKET)["KeyCount"] == 0


def test_a_foreign_service_of_the_same_name_is_left_alone(
    controller: Controller, s3: Any, bundle_dir: Path, archive: Path, config: ServeConfig
) -> None:
    config = config.model_copy(update={"namespace": "five"})
    controller.add_runtime("five")
    foreign = inference_service(config, URI, "0" * 64)
    foreign["spec"] = {"predictor": {"sklearn": {"storageUri": "s3://elsewhere/model", "name": "", "resources": {}}}}
    controller.api.create_namespaced_custom_object(GROUP, "v1beta1", "five", "inferenceservices", foreign)
    with pytest.raises(ServerError, match=r"predictor of another kind \(sklearn\)"):
        deploy_inference_service(bundle_dir, archive, config)


def test_a_change_by_somebody_else_is_not_overwritten(controller: Controller) -> None:
    from kubernetes.client import ApiException

    config = ServeConfig(namespace="six")
    manifest = inference_service(config, URI, "0" * 64)
    created = controller.api.create_namespaced_custom_object(GROUP, "v1beta1", "six", "inferenceservices", manifest)
    controller.patch("six", {"spec": {"predictor": {"maxReplicas": 2}}})
    with pytest.raises(ServerError, match="changed by somebody else"), cluster_errors(config):
        controller.patch("six", changes(created, manifest))
    with pytest.raises(ApiException):
        controller.patch("six", changes(created, manifest))


def test_an_unknown_kind_is_told_from_a_missing_object(controller: Controller) -> None:
    from kubernetes.client import ApiException

    for group, missing in ((GROUP, True), ("nobody.example", False)):
        with pytest.raises(ApiException) as caught:
            controller.api.get_namespaced_custom_object(group, "v1beta1", "x", "inferenceservices", "slicewise")
        assert is_object_missing(caught.value) is missing
    with pytest.raises(ServerError, match="knows no InferenceService") as named, cluster_errors(ServeConfig()):
        controller.api.get_namespaced_custom_object("nobody.example", "v1", "x", "inferenceservices", "slicewise")
    assert "install KServe" in named.value.cure


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clusters": [{"name": "crd", "cluster": {"server": "https://127.0.0.1:{port}"}}]}, "cannot be reached"),
        ({"contexts": []}, "no cluster is configured"),
    ],
)
def test_cluster_errors_are_named(
    controller: Controller,
    cluster: Path,
    bundle_dir: Path,
    archive: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, Any],
    message: str,
) -> None:
    settings = read_json(cluster) | change
    other = tmp_path / "kubeconfig"
    other.write_text(yaml.safe_dump(settings).replace("{port}", str(free_port())), encoding="utf-8")
    monkeypatch.setenv("KUBECONFIG", str(other))
    with pytest.raises(ServerError, match=message) as caught:
        deploy_inference_service(bundle_dir, archive, ServeConfig(storage_uri="s3://models/x"))
    assert caught.value.cure


@pytest.fixture(scope="module")
def whole_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The kubeconfig of a real API server with namespaces and RBAC, which holds the overlay ``minimal``."""
    if not KUBE_API.is_file():
        pytest.skip("the API server for tests (../shared/bin/kube-api) is not on this machine")
    if missing := [name for name in ("etcd", "kubectl", "openssl") if shutil.which(name) is None]:
        pytest.skip(f"{', '.join(missing)} not installed")
    work = tmp_path_factory.mktemp("whole")
    command = [sys.executable, str(KUBE_API)]
    started = subprocess.run([*command, "start", str(work)], stderr=subprocess.PIPE, timeout=180, check=False)
    try:
        assert started.returncode == 0, started.stderr.decode()[-800:]
        overlay = MANIFESTS / "overlays" / "minimal"
        kubectl(work / "kubeconfig", "apply", "--server-side", "--validate=false", "-k", str(overlay))
        yield work / "kubeconfig"
    finally:
        subprocess.run([*command, "stop", str(work)], check=True, timeout=60)


def kubectl(kubeconfig: Path, *words: str, codes: tuple[int, ...] = (0,)) -> str:
    command = ["kubectl", "--kubeconfig", str(kubeconfig), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode in codes, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("verb", "kind", "allowed"),
    [
        ("create", "inferenceservices.serving.kserve.io", "yes"),
        ("patch", "inferenceservices.serving.kserve.io", "yes"),
        ("get", "servingruntimes.serving.kserve.io", "yes"),
        ("delete", "inferenceservices.serving.kserve.io", "no"),
        ("patch", "servingruntimes.serving.kserve.io", "no"),
        ("get", "secrets", "no"),
    ],
)
def test_the_pipeline_may_deploy_and_no_more(whole_cluster: Path, verb: str, kind: str, allowed: str) -> None:
    who = "--as=system:serviceaccount:kubeflow:pipeline-runner"
    assert kubectl(whole_cluster, "auth", "can-i", verb, kind, "-n", "slicewise", who, codes=(0, 1)) == allowed
    assert kubectl(whole_cluster, "auth", "can-i", verb, kind, "-n", "default", who, codes=(0, 1)) == "no"


def test_a_refusal_is_named(
    whole_cluster: Path, bundle_dir: Path, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody = read_json(whole_cluster) | {"users": [{"name": "admin", "user": {}}]}
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(nobody), encoding="utf-8")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    with pytest.raises(ServerError, match="no permission for InferenceService slicewise") as caught:
        deploy_inference_service(bundle_dir, archive, ServeConfig(storage_uri="s3://models/x"))
    assert "slicewise-deployer" in caught.value.cure


def test_archive_of_another_bundle_is_refused(archive: Path, tmp_path: Path) -> None:
    from slicewise.model.network import MultiTaskUNet

    meta = BundleMeta(architecture=ModelConfig(), preprocessing=SliceConfig(), model_version="9")
    write_bundle(tmp_path / "other", MultiTaskUNet(4, ModelConfig()).state_dict(), meta)
    with pytest.raises(BundleError, match="made of another bundle"):
        deploy_inference_service(tmp_path / "other", archive, ServeConfig())
    (tmp_path / "broken.mar").write_bytes(os.urandom(100))
    with pytest.raises(BundleError, match="no archive of a bundle"):
        deploy_inference_service(tmp_path / "other", tmp_path / "broken.mar", ServeConfig())
