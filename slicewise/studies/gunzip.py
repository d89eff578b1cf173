"""Gzip streams into memory: by libdeflate where it is installed, every checksum verified, every size bounded."""

from __future__ import annotations

import importlib.util
import struct
import zlib
from collections.abc import Iterator
from typing import Any

if importlib.util.find_spec("deflate") is not None:
    from deflate import DeflateError, gzip_decompress
else:  # no wheel for this machine: the standard library does it, about five times slower
    DeflateError = gzip_decompress = None

GZIP_MAGIC = b"\x1f\x8b"
GZIP = 31  # zlib's wbits: a gzip header, a trailer with CRC-32 and length
TRAILER_BYTES = 8
# DEFLATE cannot pack tighter than 258 bytes in 2 bits: 1032 to 1 (zlib's technical details, Gailly & Adler).
MAX_RATIO = 1032
HEAD_STEP, STEP, PIECE_BYTES = 4 << 10, 64 << 10, 1 << 20
SPARE_BYTES = 1 << 16


class GzipError(ValueError):
    """The stream is truncated, corrupt or larger than allowed."""


def gunzip_head(packed: bytes, size: int) -> bytes:
    """The first ``size`` bytes of a stream, or fewer if it ends before; nothing is verified.

    Raises:
        GzipError: The stream is damaged before that.
    """
    head = b""
    try:
        for piece in _pieces(packed, HEAD_STEP, size):
            head += piece
            if len(head) >= size:
                break
    except GzipError:
        if len(head) < size:
            raise
    return head[:size]


def gunzip(packed: bytes, needed: int, limit: int) -> bytearray:
    """Unpack a stream of one or more members and verify the length and CRC-32 of each that is needed.

    Args:
        packed: The stream.
        needed: How many of its bytes the caller can use; what follows may be thrown away.
        limit: The most that the stream may unpack to, in bytes.

    Returns:
        At least ``needed`` bytes.

    Raises:
        GzipError: Truncated, corrupt, shorter than ``needed`` or longer than ``limit``. A stream that is too short
            to hold ``needed`` bytes is refused before memory is taken for them.
    """
    if needed > min(limit, MAX_RATIO * len(packed)):
        raise GzipError(f"{needed} bytes announced, more than {len(packed)} packed bytes can hold")
    if gzip_decompress is not None and needed <= (size := _last_size(packed)) <= needed + SPARE_BYTES:
        # The trailer's size is right for a single member that holds what is needed. libdeflate verifies it with the
        # checksum; several members, or damage, are told apart by the slow way.
        try:
            whole: bytearray = gzip_decompress(packed, size)
        except DeflateError:
            return _gunzip_slowly(packed, needed, limit)
        if len(whole) == size:
            return whole
    return _gunzip_slowly(packed, needed, limit)


def _last_size(packed: bytes) -> int:
    """What the last four bytes say: the size of the last member, modulo 2³², if they are not a lie."""
    return int(struct.unpack("<I", packed[-4:])[0]) if len(packed) > TRAILER_BYTES else -1


def _gunzip_slowly(packed: bytes, needed: int, limit: int) -> bytearray:
    kept, total = bytearray(), 0
    for piece in _pieces(packed, STEP, PIECE_BYTES):
        total += len(piece)
        if total > limit:
            raise GzipError(f"it unpacks to more than {limit} bytes")
        kept += memoryview(piece)[: max(needed - len(kept), 0)]
    if total < needed:
        raise GzipError(f"{needed} bytes announced, {total} bytes there")
    return kept


def _pieces(packed: bytes, step: int, most: int) -> Iterator[bytes]:
    """Unpack piece by piece, at most ``most`` bytes each; zeros after a member are padding.

    Raises:
        GzipError: A member is damaged or cut, or something else follows it.
    """
    view, at = memoryview(packed), 0
    while at < len(packed):
        if packed[at : at + 2] != GZIP_MAGIC:
            raise GzipError("something that is not gzip follows the stream")
        member = zlib.decompressobj(GZIP)
        while not member.eof:
            piece, fed = _feed(member, view[at : at + step], most)
            at += fed
            if piece:
                yield piece
            elif at >= len(packed) and not member.eof:
                raise GzipError("the stream ends too early")
        at -= len(member.unused_data)
        while at < len(packed) and packed[at] == 0:
            at += 1


def _feed(member: Any, fresh: memoryview, most: int) -> tuple[bytes, int]:
    """Unpack what is left of the last piece, or else a fresh one; also how many bytes of it were taken."""
    left = member.unconsumed_tail
    try:
        return member.decompress(left or fresh, most), 0 if left else len(fresh)
    except zlib.error as error:
        raise GzipError(str(error)) from error
