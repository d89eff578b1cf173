"""The model archive (.mar) that TorchServe loads: the bundle's files, the handler and the model's settings."""

from __future__ import annotations

import tempfile
from pathlib import Path

import yaml

from slicewise.config import ServeConfig
from slicewise.errors import BundleError
from slicewise.files import atomic_path
from slicewise.inference.bundle import META, WEIGHTS, Bundle, load_bundle
from slicewise.inference.engines.cpus import available_cpus

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
    from model_archiver.model_archiver_config import ModelArchiverConfig
    from model_archiver.model_archiver_error import ModelArchiverError
    from model_archiver.model_packaging import generate_model_archive

    settings = folder / MODEL_CONFIG
    settings.write_text(model_config(serve, version), encoding="utf-8")
    extra = [str(bundle.folder / name) for name in (META, *bundle.meta.files) if name != WEIGHTS]
    config = ModelArchiverConfig(
        model_name=serve.model_name,
        version=version or bundle.meta.model_version,
        handler=str(HANDLER),
        serialized_file=str(bundle.folder / WEIGHTS),
        extra_files=",".join(extra),
        config_file=str(settings),
        export_path=str(folder),
        force=True,
    )
    try:
        generate_model_archive(config)
    except ModelArchiverError as error:
        raise BundleError(f"{bundle.folder} cannot be archived: {error}", "package the model again") from error
    return folder / f"{serve.model_name}.mar"


def model_config(serve: ServeConfig, version: str | None = None) -> str:
    """``model-config.yaml``: TorchServe's settings of this model, and ours under ``handler``."""
    handler = {
        "threads": threads_per_worker(serve.workers),
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


def threads_per_worker(workers: int) -> int:
    """CPU threads for each worker: together no more than the process may use."""
    return max(1, available_cpus() // workers)
