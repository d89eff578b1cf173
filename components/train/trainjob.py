"""A training stage on several machines: a ``TrainJob`` of Kubeflow Trainer, made and watched through its SDK."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from components.runtime import run_id
from components.train.shared_folder import SharedFolder
from components.train.trainjob_settings import TrainJobSettings
from components.train.trainjob_spec import make_options, make_trainer
from slicewise.errors import ServerError, TrainingError
from slicewise.files import atomic_folder, read_result
from slicewise.progress import Update
from slicewise.training.job import StageJob
from slicewise.training.record import RECORD

if TYPE_CHECKING:
    from kubeflow.trainer import TrainerClient

logger = logging.getLogger("components.train")
POLL_S = 5.0
COMPLETE, FAILED = "Complete", "Failed"
TRAINER = ("trainer.kubeflow.org", "v1alpha1")
CURE = "see 'kubectl describe trainjob' and the pods' logs; the manifests are in manifests/trainer"


def train_on_nodes(
    job: StageJob,
    home: Path,
    settings: TrainJobSettings,
    out: Path,
    update: Update | None = None,
    poll_s: float = POLL_S,
) -> dict[str, Any]:
    """Train a stage in a TrainJob, and bring its weights here.

    The pods of the job share one volume with this one: data goes there, and weights and progress come back. A job
    that a killed task has left is gone on with; when this task is cancelled, the job is deleted.

    Args:
        job: What to train, its paths as this pod sees them.
        home: The run's folder on the shared volume.
        settings: What the job needs.
        out: The folder to write.
        update: Shows progress.
        poll_s: How often the job is looked at.

    Returns:
        The content of ``stage.json``.

    Raises:
        ServerError: The cluster cannot be reached, knows no TrainJob or not the runtime, or refuses it.
        TrainingError: The job failed; says why.
    """
    folder = SharedFolder(home / "trainjob" / job.stage)
    shared = _shared_job(job, home)
    name = f"slicewise-{job.stage.replace('_', '-')}-{run_id()[:8] or 'local'}"
    client = _client(settings.namespace)
    with _deleted_on_cancel(client, name):
        if not _is_there(client, name):
            path = folder.write_job(shared)
            with _cluster_errors(settings):
                trainer, options = make_trainer(settings), make_options(name, path, settings)
                client.train(runtime=settings.runtime, trainer=trainer, options=options)
            logger.info("TrainJob %s: %d nodes × %d processes", name, settings.nodes, settings.processes)
        _wait(client, name, folder, update, poll_s)
    shutil.copytree(folder.weights, out, dirs_exist_ok=True)
    record: dict[str, Any] = read_result(out / RECORD, "train")
    return record


def _shared_job(job: StageJob, home: Path) -> StageJob:
    """The job with its inputs on the shared volume; what an earlier stage has put there is taken as it is."""
    inputs = {"store": job.store, "split": job.split}
    if job.init:
        inputs[f"init-{job.stage}"] = job.init
    for name, source in inputs.items():
        if not (home / name).is_dir():
            with atomic_folder(home / name) as folder:
                shutil.copytree(source, folder, dirs_exist_ok=True)
    init = home / f"init-{job.stage}" if job.init else None
    return StageJob(**(vars(job) | {"store": home / "store", "split": home / "split", "init": init}))


def _client(namespace: str) -> TrainerClient:
    try:
        from kubeflow.trainer import KubernetesBackendConfig, TrainerClient
        from kubernetes.config import ConfigException  # type: ignore[import-untyped]
    except ImportError as error:
        cure = "install slicewise[trainer], or train in the pod: train.backend: pod"
        raise ServerError("the SDK of Kubeflow Trainer is not installed", cure) from error
    try:
        # The Kubernetes client reads KUBECONFIG once, when it is imported; in a pod there is none.
        file = os.environ.get("KUBECONFIG")
        return TrainerClient(KubernetesBackendConfig(namespace=namespace or None, config_file=file))
    except ConfigException as error:
        raise ServerError("no cluster is configured here", "run it in a pod, or set KUBECONFIG") from error


def _status(client: TrainerClient, name: str) -> dict[str, Any] | None:
    """The job's status as it is in the cluster, or None where there is no such job."""
    from kubernetes.client import ApiException  # type: ignore[import-untyped]

    backend = client.backend
    try:
        found = backend.custom_api.get_namespaced_custom_object(*TRAINER, backend.namespace, "trainjobs", name)
    except ApiException as error:
        if error.status == 404:
            return None
        raise ServerError(f"TrainJob {name} cannot be read: {error.reason}", CURE) from error
    status: dict[str, Any] = found.get("status", {})
    return status


def _is_there(client: TrainerClient, name: str) -> bool:
    """Whether the job of an earlier try is still at work, or done; a failed one is removed."""
    status = _status(client, name)
    if status is None:
        return False
    if _condition(status, FAILED) is None:
        logger.info("TrainJob %s is there already: going on with it", name)
        return True
    client.delete_job(name)
    while _status(client, name) is not None:
        time.sleep(1.0)
    return False


def _condition(status: dict[str, Any], kind: str) -> dict[str, Any] | None:
    conditions = status.get("conditions", [])
    return next((item for item in conditions if item["type"] == kind and item["status"] == "True"), None)


def _wait(client: TrainerClient, name: str, folder: SharedFolder, update: Update | None, poll_s: float) -> None:
    told, said = None, ""
    while True:
        status = _status(client, name)
        if status is None:
            raise TrainingError(f"TrainJob {name} was deleted by somebody else", "run the stage again")
        if failed := _condition(status, FAILED):
            reason = folder.error() or failed.get("message") or failed.get("reason", "")
            raise TrainingError(f"TrainJob {name} failed: {reason}", CURE)
        if (words := _pods(status)) != said:
            said = words
            logger.info("TrainJob %s: %s", name, words)
        if (now := folder.told()) and now != told:
            told = now
            if update:
                update(*now)
        if _condition(status, COMPLETE):
            return
        time.sleep(poll_s)


def _pods(status: dict[str, Any]) -> str:
    """How its pods fare, in one line."""
    jobs = status.get("jobsStatus", [])
    if not jobs:
        return "not looked at by Trainer yet, or waiting for room"
    kinds = ("active", "ready", "succeeded", "failed", "suspended")
    counts = (f"{job[kind]} {kind}" for job in jobs for kind in kinds if job.get(kind))
    return ", ".join(counts) or "waiting for room"


@contextlib.contextmanager
def _deleted_on_cancel(client: TrainerClient, name: str) -> Iterator[None]:
    """Delete the job when this task is told to end, as Kubernetes does with SIGTERM."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        logger.warning("cancelled: TrainJob %s is deleted", name)
        with contextlib.suppress(RuntimeError):
            client.delete_job(name)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _cluster_errors(settings: TrainJobSettings) -> Iterator[None]:
    """What the SDK raises says where; the reason is in the error it comes from."""
    try:
        yield
    except (RuntimeError, TimeoutError) as error:
        cause = error.__cause__
        reason = getattr(cause, "reason", "") or str(cause or error)
        body = str(getattr(cause, "body", "") or "")
        if getattr(cause, "status", 0) == 404:
            cure = "kubectl apply -k manifests/trainer, after Kubeflow Trainer itself"
            raise ServerError(f"the cluster has no training runtime {settings.runtime}", cure) from error
        raise ServerError(f"{error}: {reason} {body[:300]}".strip(), CURE) from error
