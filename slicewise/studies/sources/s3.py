"""The source ``s3://bucket/prefix``: all objects below a prefix, or one archive."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from slicewise.config.download import S3Config
from slicewise.errors import SourceError
from slicewise.files import sha256_json
from slicewise.studies.sources.archives import has_archive_name, is_archive
from slicewise.studies.sources.base import Context, Gathered, Plan, RemoteFile, Source
from slicewise.studies.sources.found import find_studies, wanted_paths
from slicewise.studies.sources.names import NameBook, is_clutter, safe_path
from slicewise.studies.sources.remote import Remote
from slicewise.studies.sources.s3_client import Bucket, S3Object, open_bucket
from slicewise.studies.sources.transfer import FILES, Transfer, link_or_copy
from slicewise.studies.sources.unpack import Unpacking

logger = logging.getLogger(__name__)

SCHEME = "s3://"
UNPACKED = ".unpacked"
# What an archive of scans unpacks to, as a multiple of its size, for the first look at the disk.
UNPACKS_TO = 1.2


class S3Source(Source):
    """Objects of a bucket.

    Args:
        given: ``s3://bucket/prefix``; the prefix may be one object.
        name: The source's short name.
        address: Where it really is, when ``given`` is another word for it.
    """

    def __init__(self, given: str, name: str, address: str | None = None) -> None:
        super().__init__(given, name)
        self._address = address or given
        self._remotes: list[Remote] = []
        self._listed: list[RemoteFile] = []

    def require_usable(self, out: Path) -> None:
        """Refuse an address without a bucket, or with a password in it."""
        bucket, _, _ = self._address.removeprefix(SCHEME).partition("/")
        if "@" in bucket:
            raise SourceError(
                "an s3:// address holds no keys", "give them as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )
        if not bucket:
            raise SourceError(f"source {self.given!r} names no bucket", "write it as s3://bucket/prefix")

    def plan(self, context: Context) -> Plan:
        """List the objects and choose among them."""
        bucket_name, _, prefix = self._address.removeprefix(SCHEME).partition("/")
        bucket = open_bucket(bucket_name, self._server(context), context.config)
        found = self._checked(_list(bucket, prefix))
        wanted = wanted_paths([PurePosixPath(path) for path, _ in found], self.name, context.config.max_studies)
        if wanted is not None:
            logger.info("%s: %d of %d files belong to the chosen studies", self.given, len(wanted), len(found))
            found = [pair for pair in found if pair[0] in wanted]
        objects = [S3Object(bucket, file.path, replace(file, path=path)) for path, file in found]
        self._listed = [remote.file for remote in objects]
        self._remotes = [remote for remote in objects if not _unpacking(context, remote.file, self.given).is_done()]
        transfer = Transfer(context, self.name)
        transfer.keep_earlier([remote.file for remote in self._remotes])
        needed = transfer.missing_bytes(self._remotes)
        archives = [remote.file.bytes for remote in self._remotes if has_archive_name(remote.file.path)]
        listed = [[file.path, file.bytes, file.etag] for file in self._listed]
        fingerprint = sha256_json({"files": listed, "max_studies": context.config.max_studies})
        return Plan(fingerprint, needed + int(UNPACKS_TO * sum(archives)))

    def gather(self, context: Context) -> Gathered:
        """Fetch the objects and unpack those that are archives."""
        transfer = Transfer(context, self.name)
        transfer.folder.mkdir(parents=True, exist_ok=True)
        fetched = {file.path: file for file in transfer.run(self._remotes)}
        lone = len(self._listed) == 1
        for file in fetched.values():
            path = transfer.folder / file.path
            if (lone or has_archive_name(file.path)) and is_archive(path):
                _unpacking(context, file, self.given).run()
                path.unlink()
        files = tuple(fetched.get(file.path, file) for file in self._listed)
        view = self._view(context, files)
        return Gathered(view, find_studies(view, self.given, self.name, context.config.max_studies), files)

    def _view(self, context: Context, files: Sequence[RemoteFile]) -> Path:
        """A folder of what is listed now; the stage may hold more, from an earlier call."""
        view = context.stage / "view"
        shutil.rmtree(view, ignore_errors=True)
        for file in files:
            unpacked = _unpacking(context, file, self.given).target
            here = context.stage / FILES / file.path
            chosen = [here] if here.is_file() else [path for path in unpacked.rglob("*") if path.is_file()]
            for path in chosen:
                target = view / path.relative_to(context.stage / FILES)
                target.parent.mkdir(parents=True, exist_ok=True)
                link_or_copy(path, target)
        return view

    def _server(self, context: Context) -> S3Config:
        return context.config.s3

    def _checked(self, files: Sequence[RemoteFile]) -> list[tuple[str, RemoteFile]]:
        """The objects that are files, each with its path below the source; a hostile name refuses the source."""
        names = NameBook(self.given)
        prefix = self._address.removeprefix(SCHEME).partition("/")[2].rstrip("/")
        found = []
        for file in files:
            below = file.path[len(prefix) :].removeprefix("/") if prefix else file.path
            below = below or PurePosixPath(file.path).name
            if (file.path.endswith("/") and file.bytes == 0) or is_clutter(below):
                continue
            path = safe_path(below, self.given)
            names.add(path)
            if has_archive_name(below):
                names.add(path.with_name(path.name + UNPACKED))
            found.append((str(path), file))
        if not found:
            raise SourceError(f"{self.given} holds no files", "list it with: aws s3 ls, and correct the address")
        return found


def _list(bucket: Bucket, prefix: str) -> list[RemoteFile]:
    """The one object of this name, or everything below a prefix."""
    # First the object: many public buckets give what they do not list.
    lone = bucket.head(prefix) if prefix and not prefix.endswith("/") else None
    if lone is not None and lone.bytes:
        return [lone]
    return list(bucket.list(prefix.rstrip("/") + "/" if prefix.strip("/") else ""))


def _unpacking(context: Context, file: RemoteFile, given: str) -> Unpacking:
    archive = context.stage / FILES / file.path
    return Unpacking(
        archive=archive,
        target=archive.with_name(archive.name + UNPACKED),
        identity=f"{file.bytes} {file.etag}",
        config=context.config,
        progress=context.progress,
        label=f"{given} ({file.path})",
    )
