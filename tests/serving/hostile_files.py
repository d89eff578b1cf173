"""Files that mean harm: truncated, larger than they look, or of a kind that nobody asked for."""

from __future__ import annotations

import gzip
import io
import struct
import sys
import zipfile
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image

# The DICOM writer lies with the tests of the DICOM reader.
sys.path.append(str(Path(__file__).parents[1] / "studies"))
from dicom_writing import write_series

MEGABYTE = 1 << 20


def slice_image() -> np.ndarray:
    """A slice ``[48, 40]`` uint8 that is not constant."""
    rows, columns = np.mgrid[:48, :40]
    return ((rows * 5 + columns * 3) % 251).astype(np.uint8)


def picture(kind: str = "PNG", mode: str | None = None, array: np.ndarray | None = None) -> bytes:
    """A picture file of the slice, or of an array."""
    buffer = io.BytesIO()
    image = Image.fromarray(slice_image() if array is None else array)
    (image.convert(mode) if mode else image).save(buffer, kind)
    return buffer.getvalue()


def npy(array: np.ndarray) -> bytes:
    """An npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def npz(**arrays: np.ndarray) -> bytes:
    """An npz file."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def nifti(shape: tuple[int, int, int] = (12, 14, 3)) -> bytes:
    """A small volume, not compressed."""
    data = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    return nib.Nifti1Image(data, np.eye(4)).to_bytes()


def dicom(folder: Path) -> bytes:
    """One DICOM image."""
    stored = np.arange(12 * 14 * 2, dtype=np.uint16).reshape(12, 14, 2)
    return write_series(folder, stored)[0].read_bytes()


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG whose header names a size that its few bytes of content do not have."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(4096))
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def png_with_a_huge_text() -> bytes:
    """A good PNG with a compressed comment of 256 MB."""
    comment = _chunk(b"zTXt", b"Comment\0\0" + _zeros(256 * MEGABYTE, wrapped=True))
    plain = picture()
    return plain[:33] + comment + plain[33:]


def gzip_bomb(megabytes: int = 2048) -> bytes:
    """A gzip that begins like a small NIfTI and unpacks to zeros without end: members one after the other."""
    return gzip.compress(nifti()[:352]) + gzip.compress(bytes(16 * MEGABYTE)) * (megabytes // 16)


def npz_bomb(megabytes: int = 2048) -> bytes:
    """An npz whose only array is 2 GB of zeros."""
    header = npy(np.zeros((1, 1), np.float64))[:128]
    shape = f"'shape': ({megabytes * MEGABYTE // 8 // 1024}, 1024), }}".encode()
    header = header[: header.index(b"'shape'")] + shape
    return zip_that_unpacks_to("t1.npy", header.ljust(127) + b"\n", megabytes)


def zip_that_unpacks_to(name: str, start: bytes, megabytes: int) -> bytes:
    """A true zip with one member: ``start``, then zeros; made without ever holding them."""
    size = len(start) + megabytes * MEGABYTE
    squeezed = _zeros(megabytes * MEGABYTE, start=start)
    encoded = name.encode()
    # Its checksum is wrong: nobody is to get as far as its end.
    common = struct.pack("<HHHHHIIIHH", 20, 0, 8, 0, 33, 0, len(squeezed), size, len(encoded), 0)
    local = b"PK\x03\x04" + common + encoded
    central = b"PK\x01\x02" + struct.pack("<H", 20) + common + struct.pack("<HHHII", 0, 0, 0, 0, 0) + encoded
    at = len(local) + len(squeezed)
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(central), at, 0)
    return local + squeezed + central + end


def zip_of(**files: bytes) -> bytes:
    """A zip; ``__`` in a name stands for ``../``."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "../"), content)
    return buffer.getvalue()


def animation(kind: str) -> bytes:
    """Two frames as GIF or as animated PNG."""
    buffer = io.BytesIO()
    frames = [Image.fromarray(slice_image()), Image.fromarray(slice_image()[::-1].copy())]
    frames[0].save(buffer, kind, save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def _zeros(size: int, start: bytes = b"", wrapped: bool = False) -> bytes:
    """``start`` and then zeros, deflated: a block that is flushed whole may be repeated."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 15 if wrapped else -15)
    head = packer.compress(start) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(MEGABYTE)) + packer.flush(zlib.Z_FULL_FLUSH)
    return head + block * (size // MEGABYTE) + packer.flush(zlib.Z_FINISH)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
