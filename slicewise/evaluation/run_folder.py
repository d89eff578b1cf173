"""Finding the metrics and the pictures of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slicewise.errors import UsageError
from slicewise.files import read_json

METRICS = "metrics.json"
PICTURES = "pictures"
STAGE_RECORD = Path("stages") / "evaluate.json"


@dataclass(frozen=True)
class OpenRun:
    """What a report is made of.

    Attributes:
        folder: The run's.
        metrics: The content of its ``metrics.json``.
        pictures: What the names of its pictures are relative to.
    """

    folder: Path
    metrics: Mapping[str, Any]
    pictures: Path


def open_run(path: Path) -> OpenRun:
    """Read a run.

    Args:
        path: A run's folder, the folder of an evaluation, or a ``metrics.json``.

    Raises:
        UsageError: There are no metrics, or they are damaged or no metrics of SliceWise.
    """
    file = path / METRICS if path.is_dir() else path
    cure = f"give the folder of a run that has been evaluated, or of a {METRICS}"
    try:
        metrics = read_json(file)
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}", cure) from error
    except ValueError as error:
        raise UsageError(f"{file} is damaged: it is not JSON", cure) from error
    if not isinstance(metrics, dict) or metrics.get("format") != "slicewise-metrics":
        raise UsageError(f"{file} holds no metrics of SliceWise", cure)
    return OpenRun(file.parent, metrics, _picture_home(file.parent))


def _picture_home(folder: Path) -> Path:
    """Beside the metrics; in the folder of a local run, where its evaluation left them."""
    if (folder / PICTURES).is_dir():
        return folder
    try:
        evaluation = Path(read_json(folder / STAGE_RECORD)["outputs"]["evaluation"])
    except (OSError, ValueError, KeyError, TypeError):
        return folder
    return evaluation if (evaluation / PICTURES).is_dir() else folder


def names_of(a: Path, b: Path) -> tuple[str, str]:
    """Names for two runs that tell them apart: the folders', with as much of the path before them as that needs."""
    parts = [(path.resolve().parent if path.name == METRICS else path.resolve()).parts for path in (a, b)]
    if parts[0] == parts[1]:
        return f"{parts[0][-1]} (A)", f"{parts[1][-1]} (B)"
    depth = 1
    while parts[0][-depth:] == parts[1][-depth:]:
        depth += 1
    return "/".join(parts[0][-depth:]), "/".join(parts[1][-depth:])
