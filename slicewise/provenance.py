"""Where a result comes from: code, packages, machine, configuration, seed and data.

Holds no host name, no user name and no path, so that it can be published with the result.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import slicewise
from slicewise.files import sha256_json

PACKAGES = (
    "torch",
    "monai",
    "nibabel",
    "numba",
    "numpy",
    "pillow",
    "pydantic",
    "pydicom",
    "safetensors",
    "scikit-learn",
    "scipy",
    "kfp",
    "kserve",
    "torchserve",
    "optuna",
    "tensorboard",
    "mlflow-skinny",
    "wandb",
)
GIT_TIMEOUT_S = 10.0
ROOT = Path(slicewise.__file__).parents[1]
_PATH = re.compile(r"(?:file:/+|[/~]|[A-Za-z]:[/\\]|\\\\)")
_SEPARATOR = re.compile(r"[/\\]")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
# In these the first part after the scheme is a bucket or a file, not a machine.
_NO_MACHINE = ("s3://", "gs://")


def provenance(config: Mapping[str, Any], seed: int | None, data_digest: str | None) -> dict[str, Any]:
    """Describe a result's origin as plain JSON.

    Args:
        config: The configuration as resolved, as plain data. Paths and addresses in it are left out.
        seed: The run's seed.
        data_digest: Digest of the data that the result comes from.

    Raises:
        TypeError: ``config`` holds something that JSON has no word for.
    """
    import torch

    configuration = _public(config)
    cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return {
        "slicewise": slicewise.__version__,
        "code": code_version(ROOT),
        "python": platform.python_version(),
        "platform": {
            "system": platform.system(),
            "machine": platform.machine(),
            "libc": " ".join(platform.libc_ver()),
        },
        "cpus": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "cuda": [torch.cuda.get_device_name(number) for number in range(cuda)],
        "packages": {name: version for name in PACKAGES if (version := _version(name)) is not None},
        "configuration": configuration,
        "configuration_sha256": sha256_json(configuration),
        "seed": seed,
        "data_digest": data_digest,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def code_version(root: Path) -> dict[str, Any] | None:
    """The commit of the checkout ``root`` and whether files differ from it.

    Returns:
        None where ``root`` is no checkout, or git is missing, slow or unwilling.
    """
    # Without this look, git would go up and answer for a project that has SliceWise installed inside it.
    if not (root / ".git").exists():
        return None
    commit, changes = _git(root, "rev-parse", "HEAD"), _git(root, "status", "--porcelain")
    if commit is None or changes is None:
        return None
    return {"commit": commit.strip(), "dirty": bool(changes.strip())}


def _git(root: Path, *words: str) -> str | None:
    # Without the lock, somebody's commit at the same moment would fail; set variables could name another checkout.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    environment |= {"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    try:
        answer = subprocess.run(
            ["git", "-C", str(root), *words],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env=environment,
            timeout=GIT_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout if answer.returncode == 0 else None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _public(value: Any) -> Any:
    """``value`` with every absolute path cut to its last part and every machine's address left out."""
    if isinstance(value, Mapping):
        return {str(key): _public(below) for key, below in value.items()}
    if isinstance(value, str):
        return _public_text(value)
    if isinstance(value, os.PathLike):
        return _public_text(os.fspath(value))
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [_public(item) for item in value]
    return value


def _public_text(text: str) -> str:
    if _PATH.match(text):
        name = _SEPARATOR.split(text.rstrip("/\\"))[-1]
        return f"<path>/{name}"
    address = _ADDRESS.match(text)
    if address and not text.startswith(_NO_MACHINE):
        return f"{address.group()}<address>"
    return text
