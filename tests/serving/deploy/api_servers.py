"""Real API servers, and KServe's controller played by the test: it watches objects and writes their status."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from envtest import ASSETS_VARIABLE, CRDS_VARIABLE, assets_folder, envtest_server
from shared_server import shared_server

from serving.kserve_cluster import GROUP, STOP_ANNOTATION, digest_of
from serving.kserve_manifest import CANARY_PERCENT, is_serverless
from slicewise.files import read_json

ROOT = Path(__file__).parents[3]
SHARED = ROOT.parent / "shared"
CRDS = SHARED / "crds"
MANIFESTS = ROOT / "manifests"
KUBECONFIG_VARIABLE = "SLICEWISE_TEST_KUBECONFIG"
log = logging.getLogger(__name__)

MOMENT = "2026-01-01T00:00:00Z"
WAIT_S = 60.0


def wait_for(condition: Callable[[], Any], what: str, seconds: float = WAIT_S) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.05)
    return found


@contextmanager
def api_server(name: str, work: Path, needs: tuple[str, ...]) -> Iterator[Path]:
    """The kubeconfig of a server of ``../shared/bin``; of one that the user names, where one is named.

    ``SLICEWISE_TEST_KUBECONFIG`` names a cluster with KServe's definitions and no controller of KServe, in which
    namespaces are made and removed; ``KUBEBUILDER_ASSETS`` a folder with ``etcd`` and ``kube-apiserver``.
    """
    if given := os.environ.get(KUBECONFIG_VARIABLE):
        yield Path(given)
        return
    if assets := assets_folder():
        with envtest_server(assets, Path(os.environ.get(CRDS_VARIABLE, CRDS)), work) as kubeconfig:
            yield kubeconfig
        return
    with shared_server(name, work, needs, f", {ASSETS_VARIABLE} or {KUBECONFIG_VARIABLE}") as kubeconfig:
        yield kubeconfig


def api_client(kubeconfig: Path) -> Any:
    from kubernetes import client
    from kubernetes import config as settings

    configuration = client.Configuration()
    settings.load_kube_config(str(kubeconfig), client_configuration=configuration)
    return client.ApiClient(configuration)


@dataclass(frozen=True)
class Seen:
    """What was watched of one InferenceService at one moment."""

    name: str
    digest: str
    percent: int | None
    stopped: bool


@dataclass
class Controller:
    """KServe's part in one namespace.

    Attributes:
        gateways: Where the gateway of a bundle answers, by the bundle's digest.
        predictors: The same of its predictor, for Knative's addresses of single revisions.
        seen: Every object as it went by, in order.
    """

    kubeconfig: Path
    namespace: str
    gateways: dict[str, str] = field(default_factory=dict)
    predictors: dict[str, str] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)

    def __post_init__(self) -> None:
        from kubernetes import client

        self.client = api_client(self.kubeconfig)
        self.api = client.CustomObjectsApi(self.client)
        self._rolled_out: dict[str, str] = {}
        self._revisions: dict[str, list[str]] = {}
        self._stop = threading.Event()

    def add_runtime(self) -> None:
        path = MANIFESTS / "base" / "servingruntime.yaml"
        runtime = yaml.safe_load(path.read_text(encoding="utf-8"))
        self.api.create_namespaced_custom_object(GROUP, "v1alpha1", self.namespace, "servingruntimes", runtime)

    def service(self, name: str = "slicewise") -> dict[str, Any] | None:
        listed = self.api.list_namespaced_custom_object(GROUP, "v1beta1", self.namespace, "inferenceservices")
        return next((item for item in listed["items"] if item["metadata"]["name"] == name), None)

    def patch(self, body: dict[str, Any], name: str = "slicewise", status: bool = False) -> None:
        call = self.api.patch_namespaced_custom_object
        if status:
            call = self.api.patch_namespaced_custom_object_status
        call(GROUP, "v1beta1", self.namespace, "inferenceservices", name, body)

    def say(self, generation: int, ready: str, name: str = "slicewise", **more: Any) -> None:
        kinds = ("PredictorReady", "TransformerReady", "Ready")
        conditions = [{"type": kind, "status": ready, "lastTransitionTime": MOMENT} for kind in kinds]
        status = {"observedGeneration": generation, "conditions": conditions} | more
        self.patch({"status": status}, name, status=True)

    @contextmanager
    def reconciling(self) -> Iterator[Controller]:
        """Answer every change with the status that KServe would write once its pods run."""
        self._stop.clear()
        thread = threading.Thread(target=self._watch, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            thread.join(WAIT_S)

    def shares(self, name: str = "slicewise") -> list[int | None]:
        """The candidate's shares of the traffic, without repetitions, in the order in which they were set."""
        found: list[int | None] = []
        for item in self.seen:
            if item.name == name and (not found or found[-1] != item.percent):
                found.append(item.percent)
        return found

    def _watch(self) -> None:
        from kubernetes import watch
        from kubernetes.client import ApiException

        place = (GROUP, "v1beta1", self.namespace, "inferenceservices")
        while not self._stop.is_set():
            stream = watch.Watch().stream(self.api.list_namespaced_custom_object, *place, timeout_seconds=1)
            try:
                for event in stream:
                    self._observe(event["object"])
            except ApiException as error:
                # A watch that ends early, as a busy server's do; a real controller begins a new one too.
                log.info("the watch ended: %s", error.reason)

    def _observe(self, service: dict[str, Any]) -> None:
        self._note(service)
        observed = int((service.get("status") or {}).get("observedGeneration") or 0)
        if observed < service["metadata"]["generation"] or self._stale(service):
            self._reconcile(service)

    def _note(self, service: dict[str, Any]) -> None:
        stopped = (service["metadata"].get("annotations") or {}).get(STOP_ANNOTATION) == "true"
        percent = service["spec"]["predictor"].get(CANARY_PERCENT)
        now = Seen(service["metadata"]["name"], digest_of(service), percent, stopped)
        if now not in self.seen[-1:]:
            self.seen.append(now)

    def _stale(self, service: dict[str, Any]) -> bool:
        """Annotations make no new generation, but a controller sees them."""
        stopped = (service["metadata"].get("annotations") or {}).get(STOP_ANNOTATION) == "true"
        return stopped == bool((service.get("status") or {}).get("url"))

    def _reconcile(self, service: dict[str, Any]) -> None:
        name, generation = service["metadata"]["name"], service["metadata"]["generation"]
        if (service["metadata"].get("annotations") or {}).get(STOP_ANNOTATION) == "true":
            self.say(generation, "False", name, url=None)
            return
        digest = digest_of(service)
        if digest not in self.gateways:
            self.say(generation, "Unknown", name)
            return
        more: dict[str, Any] = {}
        if is_serverless(service):
            more["components"] = {"predictor": self._revision(name, digest, service)}
            digest = self._rolled_out[name]
        self.say(generation, "True", name, url=self.gateways[digest], **more)

    def _revision(self, name: str, digest: str, service: dict[str, Any]) -> dict[str, Any]:
        """Knative's two revisions, and how KServe splits the traffic between them."""
        made = self._revisions.setdefault(name, [])
        if not made or made[-1] != digest:
            made.append(digest)
        revision, percent = f"{name}-{len(made):05d}", service["spec"]["predictor"].get(CANARY_PERCENT)
        before = self._rolled_out.get(name)
        if percent is None or before is None:
            self._rolled_out[name], percent = digest, 100
        traffic = [{"tag": "latest", "percent": percent, "revisionName": revision, "url": self.predictors[digest]}]
        if before and percent < 100:
            traffic.append({"tag": "prev", "percent": 100 - percent, "url": self.predictors[before]})
        return {"latestCreatedRevision": revision, "latestReadyRevision": revision, "traffic": traffic}


def with_server(kubeconfig: Path, target: Path, **change: Any) -> Path:
    """A kubeconfig with some of its parts changed."""
    target.write_text(yaml.safe_dump(read_json(kubeconfig) | change), encoding="utf-8")
    return target
