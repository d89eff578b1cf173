"""Training by TrainJob: Kubeflow Trainer's real SDK, a real API server, and the test as Trainer's controller."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from shared_server import kubectl, shared_server
from small_run import MODEL, SmallData

from components.train.shared_folder import ERROR, SharedFolder
from components.train.trainjob import TRAINER, train_on_nodes
from components.train.trainjob_settings import TrainJobSettings
from slicewise.errors import ServerError, TrainingError
from slicewise.files import write_text
from slicewise.training.record import WEIGHTS
from slicewise.training.stage import StageJob

ROOT = Path(__file__).parents[2]
NAME = "slicewise-seg-warmup-run-1234"
WAIT_S = 120.0
MOMENT = "2026-01-01T00:00:00Z"


@pytest.fixture(scope="module")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A real API server that knows TrainJobs, with the manifests of ``manifests/trainer``."""
    pytest.importorskip("kubeflow.trainer", reason="the SDK of Kubeflow Trainer is not installed")
    with shared_server("kube-api", tmp_path_factory.mktemp("cluster")) as server:
        for namespace in ("train", "empty"):
            kubectl(server, "create", "namespace", namespace)
        manifests = str(ROOT / "manifests" / "trainer")
        kubectl(server, "apply", "--server-side", "--validate=false", "-n", "train", "-k", manifests)
        yield server


class Controller:
    """Trainer's part, played by the test."""

    def __init__(self, kubeconfig: Path) -> None:
        from kubernetes import client
        from kubernetes import config as settings

        configuration = client.Configuration()
        settings.load_kube_config(str(kubeconfig), client_configuration=configuration)
        self.api = client.CustomObjectsApi(client.ApiClient(configuration))

    def jobs(self) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = self.api.list_namespaced_custom_object(*TRAINER, "train", "trainjobs")["items"]
        return items

    def wait_for_job(self) -> dict[str, Any]:
        return wait_for(lambda: next(iter(self.jobs()), None), "no TrainJob was made")

    def delete(self, name: str) -> None:
        self.api.delete_namespaced_custom_object(*TRAINER, "train", "trainjobs", name)

    def say(self, kind: str, message: str = "as told by the test") -> None:
        condition = {
            "type": kind,
            "status": "True",
            "reason": "Test",
            "message": message,
            "lastTransitionTime": MOMENT,
        }
        body = {"status": {"conditions": [condition]}}
        self.api.patch_namespaced_custom_object_status(*TRAINER, "train", "trainjobs", NAME, body)


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + WAIT_S
    while not (found := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.05)
    return found


@pytest.fixture
def controller(kubeconfig: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Controller]:
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    monkeypatch.setenv("KFP_RUN_ID", "run-1234")
    played = Controller(kubeconfig)
    yield played
    for item in played.jobs():
        played.delete(item["metadata"]["name"])


@pytest.fixture
def background() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


@pytest.fixture
def settings(tmp_path: Path) -> TrainJobSettings:
    return TrainJobSettings(
        namespace="train",
        image="registry.example/pipeline:1",
        nodes=2,
        processes=1,
        resources={"cpu": "4", "memory": "8Gi", "nvidia.com/gpu": "1"},
        claim="shared",
        mount=str(tmp_path),
        service_account="trainer",
        image_pull_secrets=("registry",),
        node_selector={"pool": "gpu"},
        tolerations=({"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},),
        env=({"name": "AWS_DEFAULT_REGION", "value": "eu"},),
        timeout_s=3600,
    )


def job(small: SmallData, folder: Path) -> StageJob:
    return small.job("seg_warmup", folder / "checkpoints")


def train(small: SmallData, home: Path, settings: TrainJobSettings, **more: Any) -> dict[str, Any]:
    return train_on_nodes(job(small, home), home, settings, home / "out", poll_s=0.05, **more)


@contextmanager
def playing(background: ThreadPoolExecutor, controller: Controller, part: Callable[[], None]) -> Iterator[None]:
    """Play a part beside the test; where it fails, the job is deleted so that nobody waits for it."""

    def guarded() -> None:
        try:
            part()
        except BaseException:
            for item in controller.jobs():
                controller.delete(item["metadata"]["name"])
            raise

    future = background.submit(guarded)
    try:
        yield
    except BaseException:
        future.result(timeout=WAIT_S)
        raise
    future.result(timeout=WAIT_S)


def run_pods(made: dict[str, Any]) -> None:
    """What the job's pods do: its own command, one process of one node."""
    trainer = made["spec"]["trainer"]
    command = [*trainer["command"], "--standalone", *trainer["args"]]
    assert command[0] == "torchrun"
    command[0:1] = [sys.executable, "-m", "torch.distributed.run"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, timeout=WAIT_S, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()[-2000:]


def test_a_job_is_made_watched_and_its_weights_brought_back(
    controller: Controller,
    background: ThreadPoolExecutor,
    settings: TrainJobSettings,
    small: SmallData,
    tmp_path: Path,
) -> None:
    told: list[tuple[int, int, str]] = []
    seen: list[dict[str, Any]] = []

    def part() -> None:
        seen.append(controller.wait_for_job())
        run_pods(seen[0])
        controller.say("Complete")

    with playing(background, controller, part):
        record = train(small, tmp_path, settings, update=lambda *now: told.append(now))

    assert record["stage"] == "seg_warmup"
    assert len(record["history"]) == 1
    assert (tmp_path / "out" / WEIGHTS).is_file()
    assert told[-1][2] == "done"
    spec = seen[0]["spec"]
    assert spec["runtimeRef"]["name"] == "slicewise-torch"
    assert (spec["trainer"]["numNodes"], spec["trainer"]["image"]) == (2, "registry.example/pipeline:1")
    assert spec["trainer"]["resourcesPerNode"]["limits"]["nvidia.com/gpu"] == "1"
    assert spec["activeDeadlineSeconds"] == 3600
    (patch,) = spec["runtimePatches"]
    (node,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    pod = node["template"]["spec"]["template"]["spec"]
    assert pod["volumes"] == [{"name": "shared", "persistentVolumeClaim": {"claimName": "shared"}}]
    assert pod["containers"][0]["volumeMounts"] == [{"name": "shared", "mountPath": str(tmp_path)}]
    assert pod["containers"][0]["env"] == [{"name": "AWS_DEFAULT_REGION", "value": "eu"}]
    assert (pod["nodeSelector"], pod["serviceAccountName"]) == ({"pool": "gpu"}, "trainer")
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    # Store and split lie where every pod sees them.
    shared = SharedFolder(tmp_path / "trainjob" / "seg_warmup").read_job()
    assert (shared.store, shared.split, shared.model) == (tmp_path / "store", tmp_path / "split", MODEL)


def test_a_failed_job_tells_why_and_a_retry_makes_another(
    controller: Controller,
    background: ThreadPoolExecutor,
    settings: TrainJobSettings,
    small: SmallData,
    tmp_path: Path,
) -> None:
    folder = tmp_path / "trainjob" / "seg_warmup"

    def fail(words: str) -> Callable[[], None]:
        def part() -> None:
            wait_for(lambda: [j for j in controller.jobs() if not j.get("status", {}).get("conditions")], "no job")
            if words:
                write_text(folder / ERROR, words)
            controller.say("Failed", "jobset failed due to one or more job failures")

        return part

    with (
        pytest.raises(TrainingError, match=f"TrainJob {NAME} failed: the loss is not finite"),
        playing(background, controller, fail("the loss is not finite — lower the learning rate")),
    ):
        train(small, tmp_path, settings)
    first = controller.jobs()[0]["metadata"]["uid"]
    with (
        pytest.raises(TrainingError, match="jobset failed due to") as caught,
        playing(background, controller, fail("")),
    ):
        train(small, tmp_path, settings)
    assert "kubectl describe trainjob" in caught.value.cure
    assert controller.jobs()[0]["metadata"]["uid"] != first


def test_a_cancelled_task_deletes_its_job(
    controller: Controller,
    background: ThreadPoolExecutor,
    settings: TrainJobSettings,
    small: SmallData,
    tmp_path: Path,
) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def part() -> None:
        controller.wait_for_job()
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt), playing(background, controller, part):
        train(small, tmp_path, settings)
    assert controller.jobs() == []
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_job_deleted_by_others_ends_the_wait(
    controller: Controller,
    background: ThreadPoolExecutor,
    settings: TrainJobSettings,
    small: SmallData,
    tmp_path: Path,
) -> None:
    def part() -> None:
        controller.wait_for_job()
        controller.delete(NAME)

    with pytest.raises(TrainingError, match="was deleted by somebody else"), playing(background, controller, part):
        train(small, tmp_path, settings)


def test_what_the_cluster_lacks_is_named(
    controller: Controller, settings: TrainJobSettings, small: SmallData, tmp_path: Path
) -> None:
    with pytest.raises(ServerError, match="no training runtime slicewise-torch") as caught:
        train(small, tmp_path, settings.model_copy(update={"namespace": "empty"}))
    assert "manifests/trainer" in caught.value.cure


@pytest.mark.parametrize(
    ("verb", "kind", "allowed"),
    [
        ("create", "trainjobs.trainer.kubeflow.org", "yes"),
        ("delete", "trainjobs.trainer.kubeflow.org", "yes"),
        ("get", "trainingruntimes.trainer.kubeflow.org", "yes"),
        ("patch", "trainingruntimes.trainer.kubeflow.org", "no"),
        ("get", "secrets", "no"),
    ],
)
def test_the_pipeline_may_train_and_no_more(kubeconfig: Path, verb: str, kind: str, allowed: str) -> None:
    who = "--as=system:serviceaccount:train:pipeline-runner"
    assert kubectl(kubeconfig, "auth", "can-i", verb, kind, "-n", "train", who, codes=(0, 1)) == allowed


def test_the_experiment_is_taken_by_the_server(kubeconfig: Path) -> None:
    path = ROOT / "manifests" / "katib" / "experiment.yaml"
    kubectl(kubeconfig, "apply", "--server-side", "--validate=false", "-n", "train", "-f", str(path))
    read = yaml.safe_load(kubectl(kubeconfig, "get", "experiment", "slicewise-tune", "-n", "train", "-o", "yaml"))
    assert read["spec"] == yaml.safe_load(path.read_text())["spec"]
