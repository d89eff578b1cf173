"""A real API server for the tests of the manifests, and kubectl to talk to it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shared_server import shared_server


@contextmanager
def api_server(work: Path) -> Iterator[Path]:
    """The kubeconfig of ``SLICEWISE_TEST_KUBECONFIG`` (its objects are overwritten), else of a server of our own."""
    if given := os.environ.get("SLICEWISE_TEST_KUBECONFIG"):
        yield Path(given)
        return
    with shared_server("kube-api", work) as kubeconfig:
        yield kubeconfig
