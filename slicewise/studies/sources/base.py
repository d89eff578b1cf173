"""What every source can do, and what it is given for it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path

from slicewise.config import DownloadConfig
from slicewise.studies.dataset import Progress
from slicewise.studies.study import StudyRecord


@dataclass(frozen=True)
class RemoteFile:
    """One file as a server lists it.

    Attributes:
        path: Where it lies below the source, in POSIX form.
        bytes: Its size.
        etag: What the server calls this content; empty where it has no name for it.
    """

    path: str
    bytes: int
    etag: str


@dataclass(frozen=True)
class Earlier:
    """What an earlier download of the same source has left in the dataset.

    Attributes:
        folder: The source's folder in that dataset.
        files: What was fetched for it and is still there unchanged, by path.
    """

    folder: Path
    files: dict[str, RemoteFile] = field(default_factory=dict)


@dataclass(frozen=True)
class Context:
    """What a source works with.

    Attributes:
        config: The section ``download``.
        seed: For phantoms.
        stage: A folder of the source's own that outlives a kill: the next call finds what is there.
        out: The dataset folder to be.
        earlier: What an earlier download has left, if any.
        progress: Called with (what, done, total).
    """

    config: DownloadConfig
    seed: int
    stage: Path
    out: Path
    earlier: Earlier | None = None
    progress: Progress | None = None


@dataclass(frozen=True)
class Plan:
    """What a source is about to do, known before any of it is done.

    Attributes:
        fingerprint: Changes with anything that would change the source's files.
        needed_bytes: How much disk the stage will take, beyond what it holds already.
    """

    fingerprint: str
    needed_bytes: int


@dataclass(frozen=True)
class Gathered:
    """A source's files on this machine.

    Attributes:
        folder: Where they lie.
        records: The studies, their paths relative to ``folder``.
        fetched: What came over the network.
    """

    folder: Path
    records: tuple[StudyRecord, ...]
    fetched: tuple[RemoteFile, ...] = ()


class Source(ABC):
    """One source of studies.

    Args:
        given: The word of ``--source``.
        name: Its short name, distinct among the sources of a dataset.
    """

    synthetic = False

    def __init__(self, given: str, name: str) -> None:
        self.given = given
        self.name = name

    @property
    def licence(self) -> str | None:
        """The licence of all its files, or None where the layouts tell."""
        return None

    def require_usable(self, out: Path) -> None:  # noqa: B027
        """Refuse at once what cannot work, before anything is written.

        Raises:
            SourceError: Names the source and the cure.
        """

    @abstractmethod
    def plan(self, context: Context) -> Plan:
        """Look at the source without fetching its files.

        Raises:
            SourceError: The source is missing, empty, of no known layout, or cannot be reached.
        """

    @abstractmethod
    def gather(self, context: Context) -> Gathered:
        """Bring the files to this machine; called after ``plan``.

        Raises:
            SourceError: A file cannot be had, or holds no study of a known layout.
        """
