"""The Kubernetes API servers of ``../shared/bin``, and kubectl to talk to them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

BIN = Path(__file__).parents[2] / "shared" / "bin"
START_S = 300


@contextmanager
def shared_server(
    name: str, work: Path, needs: tuple[str, ...] = ("etcd", "kubectl", "openssl"), instead: str = ""
) -> Iterator[Path]:
    """The kubeconfig of a server that runs in ``work``; the test is skipped where something for it is absent.

    Args:
        name: The program.
        work: An empty folder.
        needs: Programs that it starts.
        instead: What else the caller would have taken, for the reason.
    """
    program = BIN / name
    if not program.is_file():
        pytest.skip(f"no API server here: no ../shared/bin/{name}{instead}")
    if missing := [word for word in needs if shutil.which(word) is None]:
        pytest.skip(f"{', '.join(missing)} not installed (Debian: etcd-server, kubectl, openssl)")
    command = [sys.executable, str(program)]
    started = subprocess.run([*command, "start", str(work)], stderr=subprocess.PIPE, timeout=START_S, check=False)
    try:
        assert started.returncode == 0, started.stderr.decode()[-800:]
        yield work / "kubeconfig"
    finally:
        subprocess.run([*command, "stop", str(work)], check=True, timeout=60)


def kubectl(kubeconfig: Path, *words: str, codes: tuple[int, ...] = (0,)) -> str:
    """What kubectl prints."""
    command = ["kubectl", "--kubeconfig", str(kubeconfig), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode in codes, done.stderr
    return done.stdout.strip()
