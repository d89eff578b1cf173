"""Zip archives from strangers, unpacked into a folder of ours: sizes counted, names checked, links refused."""

from __future__ import annotations

import io
import stat
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from slicewise.errors import InputError, TooLargeError

MAGIC = b"PK\x03\x04"
EMPTY_MAGIC = b"PK\x05\x06"
STEP_BYTES = 1 << 20
# LZMA's dictionary may take gigabytes of memory, whatever the archive's size: these two do not.
METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
ENCRYPTED = 0x1
AGAIN = "pack the files again with zip"
DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError, RuntimeError)


@dataclass(frozen=True)
class ZipLimits:
    """How much an archive may hold.

    Attributes:
        files: Files, at most.
        unpacked_bytes: Of all files together.
        depth: Folders within folders.
        name: Characters of one name.
    """

    files: int = 4096
    unpacked_bytes: int = 1 << 30
    depth: int = 12
    name: int = 120


def unpack(data: bytes, folder: Path, limits: ZipLimits, field: str) -> list[Path]:
    """Unpack an archive.

    Declared sizes are checked before anything is written, and what is written is counted, as declarations lie.

    Args:
        data: The archive.
        folder: An empty folder.
        limits: How much it may hold.
        field: What to call it in errors.

    Returns:
        The files written.

    Raises:
        TooLargeError: Over a limit.
        InputError: Damaged, encrypted, of an unusual method, or with a name or a kind of file that is not taken.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            _check(members, limits, field)
            return _write(archive, members, folder, limits, field)
    except DAMAGE as error:
        raise InputError(f"{field} is a truncated or damaged zip archive", AGAIN) from error


def _check(members: list[zipfile.ZipInfo], limits: ZipLimits, field: str) -> None:
    if not members:
        raise InputError(f"{field} is an empty archive", "pack the study's files into it")
    if len(members) > limits.files:
        raise TooLargeError(f"{field} holds {len(members)} files", f"send at most {limits.files}")
    if sum(member.file_size for member in members) > limits.unpacked_bytes:
        raise _too_large(limits, field)
    for member in members:
        _check_member(member, limits, field)


def _check_member(member: zipfile.ZipInfo, limits: ZipLimits, field: str) -> None:
    path = PurePosixPath(member.filename.replace("\\", "/"))
    shown = repr(member.filename[: limits.name])
    if path.is_absolute() or not path.parts or ".." in path.parts or ":" in path.parts[0]:
        raise InputError(f"{field}: {shown} lies outside of the archive", AGAIN)
    if len(path.parts) > limits.depth or any(
        len(part.encode("utf-8", "replace")) > limits.name for part in path.parts
    ):
        raise InputError(f"{field}: {shown} is too deep or too long a name", "pack the files without deep folders")
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise InputError(f"{field}: {shown} is a link or device, not a file", "pack the files themselves")
    if member.flag_bits & ENCRYPTED or member.compress_type not in METHODS:
        raise InputError(f"{field}: {shown} is encrypted or packed in an unusual way", AGAIN)
    if path.suffix.lower() == ".zip":
        raise InputError(f"{field}: {shown} is an archive in the archive", "pack the files themselves")


def _write(
    archive: zipfile.ZipFile, members: list[zipfile.ZipInfo], folder: Path, limits: ZipLimits, field: str
) -> list[Path]:
    written, left = [], limits.unpacked_bytes
    for member in members:
        target = folder / PurePosixPath(member.filename.replace("\\", "/"))
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            raise InputError(f"{field}: {member.filename[: limits.name]!r} comes twice", AGAIN)
        with archive.open(member) as source, target.open("xb") as sink:
            while piece := source.read(STEP_BYTES):
                left -= len(piece)
                if left < 0:
                    raise _too_large(limits, field)
                sink.write(piece)
        written.append(target)
    return written


def _too_large(limits: ZipLimits, field: str) -> TooLargeError:
    return TooLargeError(
        f"{field} unpacks to more than {limits.unpacked_bytes >> 20} MB", "send fewer or smaller files"
    )
