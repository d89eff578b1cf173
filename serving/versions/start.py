"""One version's model server, started and stopped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from serving.gateway.backend import Backend
from serving.torchserve.archive import build_archive
from serving.torchserve.server import TorchServeProcess
from slicewise.config import ServeConfig

ARCHIVE_SUFFIX = ".mar"


@dataclass(frozen=True)
class Running:
    """A model server that is up.

    Attributes:
        connect: Makes the gateway's way to it.
        stop: Ends it; returns when nothing is left.
        alive: Whether it still runs.
        process: TorchServe's, where there is one.
    """

    connect: Callable[[], Backend]
    stop: Callable[[], None]
    alive: Callable[[], bool]
    process: TorchServeProcess | None = None

    def wait_ready(self) -> None:
        """Wait until it answers; a Predictor in this process does from the start.

        Raises:
            ServerError: It ended, or did not get ready in time.
        """
        if self.process is not None:
            self.process.wait_ready()


def start_server(source: Path, config: ServeConfig, work: Path, version: str | None = None) -> Running:
    """Start the model server of a bundle and return at once where it goes on by itself.

    The thread that calls must live as long as the server: the kernel ends TorchServe with it.

    Args:
        source: A bundle, verified here, or a ``.mar``.
        config: The backend and its limits.
        work: Folder for archives, logs and temporary files.
        version: The version's name to callers; None takes the bundle's own.

    Raises:
        BundleError: The bundle is damaged, or not one.
        ServerError: Java or TorchServe is missing, or a port is taken.
    """
    if config.backend == "inprocess":
        return _load(source, config, work, version)
    archive = source if source.suffix == ARCHIVE_SUFFIX else build_archive(source, work / "store", config, version)
    process = TorchServeProcess(archive, config, work)
    try:
        process.start()
    except BaseException:
        process.stop()
        raise
    return Running(lambda: _connect(process, config), process.stop, process.is_alive, process)


def _connect(process: TorchServeProcess, config: ServeConfig) -> Backend:
    if config.backend == "torchserve-grpc":
        from serving.gateway.torchserve_grpc import GrpcBackend

        return GrpcBackend(process.grpc_target, config)
    from serving.gateway.torchserve_http import HttpBackend

    return HttpBackend(process.url, config)


def _load(source: Path, config: ServeConfig, work: Path, version: str | None) -> Running:
    from serving.gateway.inprocess import InProcessBackend
    from serving.torchserve.jobs import Served
    from slicewise.inference.predictor import Predictor

    folder = unpack(source, work / "bundle") if source.suffix == ARCHIVE_SUFFIX else source
    predictor = Predictor.load(folder, settings=config.predictor)
    predictor.warm_up()
    served = Served(predictor.bundle, config.model_name, version, config.max_study_voxels)
    return Running(lambda: InProcessBackend(predictor, served, config), lambda: None, lambda: True)


def unpack(archive: Path, folder: Path) -> Path:
    """The bundle in an archive; the digests in it are verified when it is loaded.

    Raises:
        BundleError: It is not an archive.
    """
    import zipfile

    from slicewise.errors import BundleError

    folder.mkdir(parents=True, exist_ok=True)
    try:
        with zipfile.ZipFile(archive) as content:
            content.extractall(folder)
    except (zipfile.BadZipFile, OSError) as error:
        raise BundleError(f"{archive} is not a model archive", "package the model again") from error
    return folder
