"""Opening tar and zip archives of any origin: what kind, which members, and their bytes, nothing believed."""

from __future__ import annotations

import bz2
import gzip
import lzma
import stat
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from slicewise.errors import SourceError
from slicewise.studies.sources.guarded import GuardedStream

KINDS = "archives known: zip, tar, tar.gz, tar.bz2, tar.xz"
SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
ZIP_STARTS = (b"PK\x03\x04", b"PK\x05\x06")
STREAMS: dict[bytes, Callable[[Path], object]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}
DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    ValueError,
    NotImplementedError,
    RuntimeError,
    OverflowError,
    IndexError,
    KeyError,
)
BLOCK = tarfile.BLOCKSIZE
AGAIN = "fetch or make the archive again"


@dataclass(frozen=True)
class Member:
    """One regular file of an archive.

    Attributes:
        name: As the archive writes it.
        open: Gives its bytes for a ``with`` block; more may come than any header says.
    """

    name: str
    open: Callable[[], AbstractContextManager[IO[bytes]]]


@dataclass(frozen=True)
class Members:
    """The regular files of an archive.

    Attributes:
        members: To be opened one after the other, or where ``parallel`` says so in any order and at once.
        parallel: Whether the archive has its members apart from each other (zip).
    """

    members: Iterator[Member]
    parallel: bool


def is_archive(path: Path) -> bool:
    """Whether a file's content is an archive that can be unpacked; a ``.nii.gz`` is none."""
    try:
        with path.open("rb") as handle:
            start = handle.read(8)
        if start.startswith(ZIP_STARTS):
            return True
        with closing(_stream(path, start)) as stream:
            block = stream.read(BLOCK)
        return len(block) == BLOCK and _is_header(block)
    except (*DAMAGED, tarfile.HeaderError):
        return False


def has_archive_name(name: str) -> bool:
    """Whether a name promises an archive."""
    return name.lower().endswith(SUFFIXES)


@contextmanager
def open_archive(path: Path, counted: Callable[[int], None]) -> Iterator[Members]:
    """Yield the members of an archive that are regular files; folders are passed over.

    Args:
        path: The archive.
        counted: Called with the number of bytes that are decompressed on the way, also those of headers.

    Raises:
        SourceError: It is no archive, is damaged, cut short or encrypted, or holds anything but files and folders.
    """
    try:
        with path.open("rb") as handle:
            start = handle.read(8)
        if start.startswith(ZIP_STARTS):
            with zipfile.ZipFile(path) as archive:
                yield Members(_zip_members(archive, path), parallel=True)
        else:
            with closing(GuardedStream(_stream(path, start), counted)) as stream:
                yield Members(_tar_members(stream, path), parallel=False)
    except SourceError:
        raise
    except DAMAGED as error:
        raise damaged(path, error) from error


def damaged(path: Path, error: Exception, member: str = "") -> SourceError:
    """What to tell of an archive that cannot be read."""
    where = f"{path}: the member {member!r}" if member else str(path)
    return SourceError(f"{where} is damaged or cut short ({type(error).__name__}: {error})", f"{AGAIN}; {KINDS}")


def _stream(path: Path, start: bytes) -> IO[bytes]:
    """The file's content without its outermost compression."""
    opener = next((opener for magic, opener in STREAMS.items() if start.startswith(magic)), None)
    return cast("IO[bytes]", opener(path)) if opener else path.open("rb")


def _is_header(block: bytes) -> bool:
    tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    return True


def _zip_members(archive: zipfile.ZipFile, path: Path) -> Iterator[Member]:
    lock = threading.Lock()
    for info in archive.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)
        if info.is_dir() and kind in (0, stat.S_IFDIR):
            continue
        if kind not in (0, stat.S_IFREG):
            raise _not_a_file(path, info.filename)
        if info.flag_bits & 0x1:
            raise SourceError(
                f"{path}: the member {info.filename!r} is encrypted", "unpack it with its password first"
            )

        @contextmanager
        def opened(info: zipfile.ZipInfo = info) -> Iterator[IO[bytes]]:
            # Reading is safe from several threads; opening and closing change the archive's own count.
            with lock:
                stream = archive.open(info)
            try:
                yield stream
            finally:
                with lock:
                    stream.close()

        # As the archive writes it: zipfile itself makes slashes of the separators of other systems.
        yield Member(info.orig_filename, opened)


def _tar_members(stream: GuardedStream, path: Path) -> Iterator[Member]:
    with tarfile.open(fileobj=cast("IO[bytes]", stream), mode="r:") as archive:
        while info := archive.next():
            # tarfile remembers every member that it has seen; a long archive would fill the memory.
            archive.members = []  # type: ignore[attr-defined]
            if info.isdir():
                continue
            if not info.isreg() or info.issparse():
                raise _not_a_file(path, info.name)
            _require_tame(info, path)

            def opened(info: tarfile.TarInfo = info) -> IO[bytes]:
                return cast("IO[bytes]", archive.extractfile(info))

            yield Member(info.name, opened)
        # tarfile takes a cut or a broken header for the end: the end is a block of zeros.
        stream.seek(archive.offset)
        end = stream.read(BLOCK)
        if len(end) < BLOCK or any(end):
            raise SourceError(f"{path} is cut short or damaged: it has no end mark", f"{AGAIN}; {KINDS}")
        # To the last byte, where the compression keeps its checksum.
        while stream.read(1 << 16):
            pass


def _require_tame(info: tarfile.TarInfo, path: Path) -> None:
    """Python's own check of a member, beside ours."""
    if hasattr(tarfile, "data_filter"):
        try:
            tarfile.data_filter(info, str(path.parent))
        except tarfile.FilterError as error:
            raise SourceError(
                f"{path}: the member {info.name!r} is refused: {error}", "do not use this archive"
            ) from error


def _not_a_file(path: Path, name: str) -> SourceError:
    message = f"{path}: the member {name!r} is a link, a device or something else that is no file"
    return SourceError(message, "pack the set again with plain files, e.g. tar --dereference --hard-dereference")
