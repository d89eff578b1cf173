"""A run is a folder: what was asked for, how far it has come, what came out."""

from __future__ import annotations

import fcntl
import os
import platform
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from components.runtime import RECORDS
from slicewise import RESEARCH_USE, __version__
from slicewise.config import Config, validate
from slicewise.errors import RunLockedError, UsageError
from slicewise.files import read_json, write_json, write_text

RUN = "run.json"
CONFIG = "config.yaml"
LOG = "pipeline.log"
# How the local runner tells that a task begins.
TASK = re.compile(r"Executing task '?([\w-]+)'?")
PACKAGES = ("torch", "monai", "numpy", "nibabel", "scikit-learn", "scipy", "pillow", "kfp", "torchserve", "kserve")


class Run:
    """One run's folder.

    Attributes:
        folder: The folder, absolute.
        config: The configuration as resolved.
        sources: The sources as given.
    """

    def __init__(self, folder: Path, config: Config, sources: Sequence[str]) -> None:
        self.folder = folder.resolve()
        self.config = config
        self.sources = list(sources)

    @classmethod
    def create(cls, folder: Path, config: Config, sources: Sequence[str]) -> Run:
        """Make the folder and write down what was asked for.

        Raises:
            UsageError: The folder already holds a run.
        """
        if (folder / RUN).exists():
            raise UsageError(
                f"{folder} already holds a run", "add --resume to go on with it, or choose another --out"
            )
        run = cls(folder, config, sources)
        run.folder.mkdir(parents=True, exist_ok=True)
        run.save("running")
        return run

    @classmethod
    def open(cls, folder: Path) -> Run:
        """Read the folder of an earlier run.

        Raises:
            UsageError: There is no run in it.
        """
        try:
            record = read_json(folder / RUN)
            config = validate(Config, yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8")))
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise UsageError(f"{folder} holds no run to resume", "start one without --resume") from error
        return cls(folder, config, record["sources"])

    def save(self, status: str, **more: Any) -> None:
        """Write ``run.json`` and ``config.yaml``."""
        text = yaml.safe_dump(self.config.model_dump(mode="json"), sort_keys=False)
        write_text(self.folder / CONFIG, text)
        record = {
            "research_use": RESEARCH_USE,
            "status": status,
            "mode": self.config.mode,
            "seed": self.config.seed,
            "sources": self.sources,
            "slicewise": __version__,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "packages": {name: _version(name) for name in PACKAGES},
            **more,
        }
        write_json(self.folder / RUN, record)

    def records(self) -> dict[str, dict[str, Any]]:
        """What the finished stages told of themselves, by stage."""
        paths = (self.folder / RECORDS).glob("*.json")
        return {path.stem: read_json(path) for path in sorted(paths, key=lambda path: path.stat().st_mtime)}

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for this process; a killed process lets go of it by itself.

        Raises:
            RunLockedError: Another process holds it.
        """
        with (self.folder / ".lock").open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                cure = "wait for it to end, or stop it"
                raise RunLockedError(f"another process is working on {self.folder}", cure) from error
            handle.write(f"{os.getpid()} {' '.join(sys.argv)}\n")
            handle.flush()
            yield


def new_folder(mode: str, root: Path) -> Path:
    """A fresh folder name ``runs/<time>-<mode>``."""
    stem = f"{datetime.now().astimezone():%Y%m%d-%H%M%S}-{mode}"
    folder, count = root / stem, 1
    while folder.exists():
        count += 1
        folder = root / f"{stem}-{count}"
    return folder


def latest_unfinished(root: Path) -> Path:
    """The newest run that did not end.

    Raises:
        UsageError: There is none.
    """
    for path in sorted(root.glob(f"*/{RUN}"), key=lambda path: path.stat().st_mtime, reverse=True):
        if read_json(path)["status"] not in ("done", "refused"):
            return path.parent
    raise UsageError(f"no unfinished run in {root}", "start one without --resume, or name it with --out")


@dataclass(frozen=True)
class LocalRun:
    """A run on this machine.

    Attributes:
        folder: Its folder.
        status: ``running``, ``done``, ``refused`` by the gate, ``failed`` or ``stopped``.
        done: How many stages have ended well.
    """

    folder: Path
    status: str
    done: int


def list_runs(folder: Path) -> list[LocalRun]:
    """The runs in a folder, or the one that it is, the newest first."""
    paths = [folder / RUN] if (folder / RUN).is_file() else list(folder.glob(f"*/{RUN}"))
    paths.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    return [
        LocalRun(path.parent, read_json(path)["status"], len(list((path.parent / RECORDS).glob("*.json"))))
        for path in paths
    ]


def read_log(folder: Path, task: str) -> list[str]:
    """The lines of one task in a local run's log.

    Args:
        folder: The run's folder.
        task: As in the pipeline: ``preprocess``, ``train``, ``train-2``.

    Raises:
        UsageError: There is no run, or it has begun no such task.
    """
    try:
        lines = (folder / LOG).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UsageError(f"{folder} holds no run with a log", "see 'slicewise runs'") from error
    begins = [(at, found.group(1)) for at, line in enumerate(lines) if (found := TASK.search(line))]
    ends = [*(at for at, _ in begins[1:]), len(lines)]
    parts = [lines[at:end] for (at, name), end in zip(begins, ends, strict=True) if name == task]
    if not parts:
        names = ", ".join(dict.fromkeys(name for _, name in begins)) or "none"
        raise UsageError(f"{folder} has no log of a task {task!r}", f"tasks there: {names}")
    return parts[-1]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
