"""The model archive (.mar) that TorchServe loads: the bundle's files, the handler and the model's settings."""

from __future__ import annotations

import itertools
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from serving.environment import child_environment
from slicewise.config import ServeConfig
from slicewise.cpus import available_cpus
from slicewise.errors import BundleError
from slicewise.files import atomic_path
from slicewise.inference.bundle import META, WEIGHTS, Bundle, load_bundle

HANDLER = Path(__file__).with_name("handler.py")
MODEL_CONFIG = "model-config.yaml"
STARTUP_S = 300


def build_archive(bundle_dir: Path, out: Path, serve: ServeConfig, version: str | None = None) -> Path:
    """Make ``<model_name>.mar`` of a bundle, atomically.

    Args:
        bundle_dir: The bundle; verified first.
        out: The folder to put it in.
        serve: Workers, batching and limits.
        version: The version's name to callers; None takes the bundle's own.

    Returns:
        The archive.

    Raises:
        BundleError: The bundle is damaged, or the archiver refused it.
    """
    bundle = load_bundle(bundle_dir)
    out.mkdir(parents=True, exist_ok=True)
    target = out / f"{serve.model_name}.mar"
    with tempfile.TemporaryDirectory(prefix=".archive-", dir=out) as folder:
        made = _archive_into(Path(folder), bundle, serve, version)
        with atomic_path(target) as temporary:
            made.replace(temporary)
    return target


def _archive_into(folder: Path, bundle: Bundle, serve: ServeConfig, version: str | None) -> Path:
    settings = folder / MODEL_CONFIG
    settings.write_text(model_config(serve, version), encoding="utf-8")
    extra = [str(bundle.folder / name) for name in (META, *bundle.meta.files) if name != WEIGHTS]
    words = {
        "--model-name": serve.model_name,
        "--version": version or bundle.meta.model_version,
        "--handler": str(HANDLER),
        "--serialized-file": str(bundle.folder / WEIGHTS),
        "--extra-files": ",".join(extra),
        "--config-file": str(settings),
        "--export-path": str(folder),
    }
    # A process of its own, with a temporary folder of its own: the archiver empties and fills <temp>/<model name>,
    # where a second one at the same time, or whatever somebody keeps there, would be lost.
    command = [sys.executable, "-m", "model_archiver.model_packaging", "--force", *itertools.chain(*words.items())]
    done = subprocess.run(
        command, env=child_environment() | {"TMPDIR": str(folder)}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise BundleError(f"{bundle.folder} cannot be archived: {reason[0]}", "package the model again")
    return folder / f"{serve.model_name}.mar"


def model_config(serve: ServeConfig, version: str | None = None) -> str:
    """``model-config.yaml``: TorchServe's settings of this model, and ours under ``handler``."""
    handler = {
        "threads": worker_threads(serve),
        "max_study_voxels": serve.max_study_voxels,
        "predictor": serve.predictor.model_dump(mode="json"),
    }
    return yaml.safe_dump(
        {
            "minWorkers": serve.workers,
            "maxWorkers": serve.workers,
            "batchSize": serve.batch_size,
            "maxBatchDelay": serve.max_batch_delay_ms,
            "responseTimeout": serve.timeout_s,
            "startupTimeout": STARTUP_S,
            "jobQueueSize": job_queue_size(serve),
            "handler": handler | ({} if version is None else {"version": version}),
        },
        sort_keys=False,
    )


def job_queue_size(serve: ServeConfig) -> int:
    """TorchServe's queue: room for two gateways that use all they may, so that one alone never fills it."""
    return 2 * serve.max_in_flight + serve.batch_size


def worker_threads(serve: ServeConfig) -> int:
    """CPU threads of each worker, where ``predictor.threads`` does not name them.

    Together twice what the process may use: while one worker computes with all of them, another waits for its next
    batch. Two such workers answer a lone request as fast as one does, and more of many
    (``benchmarks/serving/workers.py``).
    """
    if serve.predictor.threads != "auto":
        return serve.predictor.threads
    cpus = available_cpus()
    return max(1, min(cpus, 2 * cpus // serve.workers))
