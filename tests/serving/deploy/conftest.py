"""What the deployment's tests share: API servers, storages, and three small models that are really served."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from api_servers import Controller, api_client, api_server
from deploying import BUCKET, volume_config
from models import Model, served_models, write_model
from shared_server import kubectl

import serving.canary_revision
import serving.kserve_ready
from serving.torchserve.archive import build_archive
from slicewise.config import ServeConfig

_NUMBERS = itertools.count(1)


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the cluster more often than people need to."""
    for module in (serving.kserve_ready, serving.canary_revision):
        monkeypatch.setattr(module, "POLL_S", 0.1)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The kubeconfig of a real, strict API server that knows KServe's kinds and nothing else."""
    with api_server("crd-server", tmp_path_factory.mktemp("cluster"), ("etcd", "openssl")) as kubeconfig:
        yield kubeconfig


@pytest.fixture(scope="session")
def whole_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The kubeconfig of a real API server with pods, quotas and RBAC, which holds the overlay ``minimal``."""
    needs = ("etcd", "kubectl", "openssl")
    with api_server("kube-api", tmp_path_factory.mktemp("whole"), needs) as kubeconfig:
        overlay = Path(__file__).parents[3] / "manifests" / "overlays" / "minimal"
        kubectl(kubeconfig, "apply", "--server-side", "--validate=false", "-k", str(overlay))
        yield kubeconfig


def _namespaced(kubeconfig: Path) -> Iterator[Controller]:
    """A namespace of its own with our ServingRuntime, and a controller for it."""
    from kubernetes.client import ApiException, CoreV1Api

    controller = Controller(kubeconfig, f"slicewise-test-{next(_NUMBERS)}")
    core, made = CoreV1Api(controller.client), True
    try:
        core.create_namespace({"metadata": {"name": controller.namespace}})
    except ApiException as error:
        if error.status != 404:
            raise
        # The strict server has no namespaces as objects: any name will do.
        made = False
    controller.add_runtime()
    yield controller
    if made:
        core.delete_namespace(controller.namespace)


@pytest.fixture
def controller(cluster: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Controller]:
    monkeypatch.setenv("KUBECONFIG", str(cluster))
    yield from _namespaced(cluster)


@pytest.fixture
def whole_controller(whole_cluster: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Controller]:
    monkeypatch.setenv("KUBECONFIG", str(whole_cluster))
    yield from _namespaced(whole_cluster)


@pytest.fixture(scope="session")
def core_api(whole_cluster: Path) -> Any:
    from kubernetes.client import CoreV1Api

    return CoreV1Api(api_client(whole_cluster))


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
def all_models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Model]]:
    """Versions 3, 4 (the same answers) and 5 (the opposite answers)."""
    work = tmp_path_factory.mktemp("models")
    bundles = [
        write_model(work / "3", "3", 7),
        write_model(work / "4", "4", 7),
        write_model(work / "5", "5", 7, opposite=True),
    ]
    with served_models(bundles, work) as models:
        yield models


@pytest.fixture
def models(all_models: list[Model]) -> Iterator[list[Model]]:
    """The same, without the faults of the test before."""
    yield all_models
    for model in all_models:
        model.predictor.reset()


@pytest.fixture
def claim_config(controller: Controller, tmp_path: Path) -> ServeConfig:
    """A deployment through a mounted claim, with a canary of two short steps."""
    return volume_config(controller.namespace, tmp_path / "claim")


@pytest.fixture
def background() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool
