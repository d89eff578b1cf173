"""A real API server for the tests of the manifests, and kubectl to talk to it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from built import SHARED

KUBE_API = SHARED / "bin" / "kube-api"


@contextmanager
def api_server(work: Path) -> Iterator[Path]:
    """The kubeconfig of ``SLICEWISE_TEST_KUBECONFIG`` (its objects are overwritten), else of a server of our own."""
    if given := os.environ.get("SLICEWISE_TEST_KUBECONFIG"):
        yield Path(given)
        return
    if not KUBE_API.is_file():
        pytest.skip("the API server for tests (../shared/bin/kube-api) is not on this machine")
    if missing := [name for name in ("etcd", "kubectl", "openssl") if shutil.which(name) is None]:
        pytest.skip(f"{', '.join(missing)} not installed")
    command = [sys.executable, str(KUBE_API)]
    started = subprocess.run([*command, "start", str(work)], stderr=subprocess.PIPE, timeout=300, check=False)
    try:
        assert started.returncode == 0, started.stderr.decode()[-800:]
        yield work / "kubeconfig"
    finally:
        subprocess.run([*command, "stop", str(work)], check=True, timeout=60)
