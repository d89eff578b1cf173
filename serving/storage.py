"""Where models and their registry lie: a bucket or a mounted claim, behind one small interface."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from slicewise.config import ServeConfig
from slicewise.errors import ConfigError

CURE = "set serve.storage_uri to s3://BUCKET/PREFIX, e.g. --set serve.storage_uri=s3://models/slicewise"


class Storage(Protocol):
    """Objects by name below one address.

    Every method raises ServerError where the storage cannot be reached or refuses.
    """

    uri: str

    def read(self, name: str) -> tuple[bytes, str] | None:
        """An object's content and its tag, which changes with the content; None when there is none."""

    def swap(self, name: str, body: bytes, tag: str | None) -> bool:
        """Write if the object still has ``tag`` (None: if there is none); False when somebody was faster."""

    def write(self, name: str, body: bytes) -> None:
        """Write a small object."""

    def upload(self, source: Path, name: str) -> None:
        """Write a file."""

    def sha256(self, name: str) -> str | None:
        """SHA-256 of what is stored, read back; None when there is none."""

    def move(self, source: str, target: str) -> None:
        """Give an object another name."""

    def remove(self, prefix: str) -> None:
        """Remove every object below ``prefix/``."""


def open_storage(config: ServeConfig) -> Storage:
    """The storage that ``serve.storage_uri`` names.

    Raises:
        ConfigError: Empty, of another kind, without a bucket or claim, or a claim that is not mounted here.
    """
    if not config.storage_uri:
        raise ConfigError("serve.storage_uri is empty: the cluster has nowhere to read the model from", CURE)
    parts = urlsplit(config.storage_uri)
    path = "/".join(word for word in parts.path.split("/") if word)
    if parts.scheme not in ("s3", "pvc") or not parts.netloc or ".." in path.split("/"):
        raise ConfigError(f"serve.storage_uri: {config.storage_uri!r} is not s3://BUCKET/PREFIX", CURE)
    if parts.scheme == "s3":
        from serving.storage_s3 import S3Storage

        return S3Storage(parts.netloc, path)
    mount = Path(config.storage_mount)
    if not config.storage_mount or not mount.is_dir():
        raise ConfigError(
            f"serve.storage_mount: claim {parts.netloc} is not mounted here",
            "mount the claim and name its folder, e.g. --set serve.storage_mount=/mnt/store",
        )
    from serving.storage_folder import FolderStorage

    return FolderStorage(mount / path, f"pvc://{parts.netloc}/{path}".rstrip("/"))
