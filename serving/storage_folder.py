"""Storage on a mounted claim."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from slicewise.errors import ServerError
from slicewise.files import atomic_path, sha256_file


class FolderStorage:
    """Files below a folder.

    Args:
        folder: The folder.
        uri: Its address for the cluster, ``pvc://CLAIM/PATH``.
    """

    def __init__(self, folder: Path, uri: str) -> None:
        self.folder = folder
        self.uri = uri

    def read(self, name: str) -> tuple[bytes, str] | None:
        """Content and its SHA-256."""
        with self._named_errors():
            try:
                body = (self.folder / name).read_bytes()
            except FileNotFoundError:
                return None
            return body, sha256(body).hexdigest()

    def swap(self, name: str, body: bytes, tag: str | None) -> bool:
        """Compare and write under a lock of the file system."""
        with self._named_errors():
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            with (self.folder / f"{name}.lock").open("wb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                found = self.read(name)
                if (found[1] if found else None) != tag:
                    return False
                self.write(name, body)
                return True

    def write(self, name: str, body: bytes) -> None:
        """Write atomically."""
        with self._named_errors(), atomic_path(self.folder / name) as temporary:
            temporary.write_bytes(body)

    def upload(self, source: Path, name: str) -> None:
        """Copy atomically."""
        with self._named_errors(), atomic_path(self.folder / name) as temporary:
            shutil.copyfile(source, temporary)

    def sha256(self, name: str) -> str | None:
        """Read back and digest."""
        with self._named_errors():
            path = self.folder / name
            return sha256_file(path) if path.is_file() else None

    def move(self, source: str, target: str) -> None:
        """Rename in one step."""
        with self._named_errors():
            (self.folder / target).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / source).replace(self.folder / target)

    def remove(self, prefix: str) -> None:
        """Remove the folder."""
        with self._named_errors():
            if (self.folder / prefix).is_dir():
                shutil.rmtree(self.folder / prefix)

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            cure = "make room on the claim, mount it for writing, and give this user the right to write"
            raise ServerError(f"{self.uri} cannot be used: {error.strerror}", cure) from error
