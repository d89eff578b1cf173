"""Run the pipeline once in real containers: ``python images/run_pipeline.py FOLDER --log LOG``, started by hand.

Each task is a container of the pipeline image (``images/build.sh pipeline``), with no network, a read-only root, no
capabilities and a numeric user. Takes docker, or podman's socket, with DOCKER_HOST=unix:///tmp/podman.sock:
``podman system service --time=0 unix:///tmp/podman.sock``
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import sysconfig
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, TextIO

from kfp import local
from kfp.local import docker_task_handler

from pipelines.cluster import ClusterConfig
from pipelines.local import SECTIONS
from pipelines.local_settings import local_settings
from pipelines.pipeline import build_pipeline
from slicewise.config import load_config

TRIAL = Path(__file__).with_name("trial.yaml")
RESTRICTED = {
    # The image's own entry point is the command line; a pod's command replaces it, the local runner's does not.
    "entrypoint": ["/usr/bin/env"],
    "user": "1000",
    "network_mode": "none",
    "read_only": True,
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
    "tmpfs": {"/tmp": "rw,exec,size=4g,mode=1777"},
    "shm_size": "512m",
}
PACKAGES = sysconfig.get_path("purelib") + "/"
INPUTS = "Got executor_input:"
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class Tee:
    """Text to the terminal, and a shorter form of it to a log.

    The log is without colours, without this machine's folders, and without the inputs that KFP prints of each task.

    Args:
        screen: The terminal.
        log: The file.
        folder: The run's folder, written as ``RUN`` in the log.
    """

    def __init__(self, screen: TextIO, log: TextIO, folder: Path) -> None:
        self._screen, self._log, self._folder = screen, log, str(folder)
        self._rest = ""
        self._in_inputs = False

    def write(self, text: str) -> int:
        """As of every text stream."""
        self._screen.write(text)
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._keep(COLOURS.sub("", line).replace(self._folder, "RUN").replace(PACKAGES, ""))
        return len(text)

    def flush(self) -> None:
        """As of every text stream."""
        self._screen.flush()
        self._log.flush()

    def _keep(self, line: str) -> None:
        if not self._in_inputs and line:
            self._log.write(line + "\n")
        self._in_inputs = line.endswith(INPUTS) or (self._in_inputs and line != "}")


def run_container(client: Any, image: str, command: list[str], volumes: dict[str, Any], **options: Any) -> int:
    """Run one task to its end.

    The runner's own has docker remove the container by itself, and takes one that is gone before it was asked for its
    exit code for a success. This one removes it afterwards.
    """
    container = client.containers.run(image=image, command=command, volumes=volumes, detach=True, **options)
    try:
        for line in container.logs(stream=True):
            sys.stdout.write(line.decode(errors="replace"))
        return int(container.wait()["StatusCode"])
    finally:
        container.remove(force=True)


def main() -> int:
    """Run it; 0 where every task succeeded."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where everything goes; new or empty")
    parser.add_argument("--log", type=Path, required=True)
    given = parser.parse_args()
    # The containers' user is another than this one.
    os.umask(0)
    folder = given.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    docker_task_handler.run_docker_container = run_container
    config = load_config("smoke", TRIAL, ["preprocess.shards=2"])
    pipeline = build_pipeline(config, local_settings(ClusterConfig()), deploy_target="local")
    root = str(folder)
    local.init(local.DockerRunner(**RESTRICTED), pipeline_root=root)
    arguments = {name: config.section(name) for name in SECTIONS}
    with given.log.open("w", encoding="utf-8") as log, redirect_stdout(Tee(sys.stdout, log, folder)):
        pipeline(sources=["phantom"], seed=config.seed, run_folder=root, **arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
