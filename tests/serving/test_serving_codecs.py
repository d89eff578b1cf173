"""Image files, parameters and errors."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from serving.codecs.images import decode_file, map_png, mask_png, to_slice
from serving.codecs.parameters import read_parameters
from serving.status import BackendError, UnsupportedMediaError, error_body, error_from, status_of
from slicewise.config import SliceConfig
from slicewise.errors import BundleError, InputError, ServerError, TooLargeError
from slicewise.studies.pictures import grey_pixels, open_picture

Encode = Callable[..., bytes]


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "1"])
def test_png_modes_decode_like_in_training(
    mode: str, head: NDArray[np.uint8], encoded: Encode, tmp_path: Path
) -> None:
    data = encoded(head, "PNG", mode)
    path = tmp_path / "slice.png"
    path.write_bytes(data)
    trained = grey_pixels(open_picture(path, "study")[0])
    decoded = decode_file(data)
    assert decoded.shape == (1, *head.shape)
    assert decoded.dtype == trained.dtype
    assert decoded.tobytes() == trained.tobytes()
    if mode in ("L", "RGB", "RGBA", "LA"):
        np.testing.assert_array_equal(decoded[0], head)


def test_sixteen_bits_are_kept(head: NDArray[np.uint8], encoded: Encode) -> None:
    deep = head.astype(np.uint16) * 200
    np.testing.assert_array_equal(decode_file(encoded(deep))[0], deep)


def test_alpha_is_over_black() -> None:
    pixels = np.full((8, 8, 4), 200, np.uint8)
    pixels[:4, :, 3] = 0
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    decoded = decode_file(buffer.getvalue())[0]
    assert decoded[:4].max() == 0
    assert decoded[4:].min() > 100


def test_exif_orientation_is_followed(head: NDArray[np.uint8]) -> None:
    image, buffer = Image.fromarray(head), io.BytesIO()
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(buffer, "JPEG", exif=exif, quality=95)
    assert decode_file(buffer.getvalue()).shape == (1, head.shape[1], head.shape[0])


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "npy"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
def test_truncated_files_are_refused_with_a_cure(
    kind: str, share: float, head: NDArray[np.uint8], encoded: Encode
) -> None:
    data = encoded(head, kind)
    with pytest.raises(InputError, match=r"truncated|damaged") as caught:
        decode_file(data[: max(12, int(len(data) * share))], "image_bytes[2]")
    assert caught.value.message.startswith("image_bytes[2]")
    assert caught.value.cure


def test_animation_is_refused(head: NDArray[np.uint8]) -> None:
    buffer = io.BytesIO()
    frames = [Image.fromarray(head), Image.fromarray(head[::-1])]
    frames[0].save(buffer, "PNG", save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match="2 frames"):
        decode_file(buffer.getvalue())


@pytest.mark.parametrize("side", [9000, 30000])
def test_a_bomb_is_refused_before_decoding(side: int) -> None:
    def chunk(name: bytes, data: bytes) -> bytes:
        body = name + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    with pytest.raises(TooLargeError, match="pixels"):
        decode_file(data)


def test_npy_that_declares_too_much_is_refused_before_allocating(encoded: Encode) -> None:
    data = encoded(np.zeros((4, 4), np.float32), "npy").replace(b"(4, 4)", b"(4000000, 4000000)"[:6])
    with pytest.raises(InputError):
        decode_file(data)
    buffer = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": (1 << 20, 1 << 20)}
    np.lib.format.write_array_header_1_0(buffer, header)
    with pytest.raises(TooLargeError):
        decode_file(buffer.getvalue())


@pytest.mark.parametrize(
    "array", [np.array([{"a": 1}], dtype=object), np.zeros((2, 3, 4, 5)), np.zeros((4, 4), "c8")]
)
def test_npy_that_is_no_image_is_refused(array: NDArray[Any]) -> None:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    with pytest.raises(InputError):
        decode_file(buffer.getvalue())


def test_kind_is_told_by_content() -> None:
    with pytest.raises(UnsupportedMediaError, match="PNG, JPEG or npy"):
        decode_file(b"GIF89a........")


def test_default_modalities(head: NDArray[np.uint8]) -> None:
    config = SliceConfig()
    assert to_slice(head[np.newaxis], None, config).modalities == ("unknown",)
    assert to_slice(np.stack([head] * 4), None, config).modalities == config.modalities
    with pytest.raises(InputError, match="modalities"):
        to_slice(np.stack([head] * 2), None, config)


def test_masks_and_maps_as_png() -> None:
    mask = np.eye(5, dtype=np.uint8)
    assert np.asarray(Image.open(io.BytesIO(base64.b64decode(mask_png(mask))))).tolist() == (mask * 255).tolist()
    ramp = np.array([[0.0, 0.5, 1.0, 7.0]], dtype=np.float32)
    assert np.asarray(Image.open(io.BytesIO(base64.b64decode(map_png(ramp))))).tolist() == [[0, 128, 255, 255]]


def test_parameters() -> None:
    read = read_parameters(
        {
            "tasks": "classify, explain",
            "threshold": "0.25",
            "n_mc_samples": 3,
            "use_tta": "true",
            "explain_method": "occlusion",
            "modalities": ["t1"],
            "pixel_mm": "2,3",
        }
    )
    assert read.options.tasks == ("classify", "explain")
    assert (read.options.threshold, read.options.n_mc_samples) == (0.25, 3)
    assert (read.options.use_tta, read.options.explain_method) == (True, "occlusion")
    assert (read.modalities, read.pixel_mm) == (("t1",), (2.0, 3.0))


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"threshhold": 0.5}, "did you mean 'threshold'"),
        ({"threshold": 1.5}, "threshold"),
        ({"threshold": "high"}, "threshold"),
        ({"threshold": float("nan")}, "threshold"),
        ({"tasks": ["classify", "guess"]}, "guess"),
        ({"tasks": 3}, "tasks"),
        ({"n_mc_samples": 1.5}, "n_mc_samples"),
        ({"n_mc_samples": 5000}, "n_mc_samples"),
        ({"pixel_mm": "0"}, "pixel_mm"),
        ({"pixel_mm": "1,2,3"}, "pixel_mm"),
        ({"use_tta": "perhaps"}, "use_tta"),
        ({"explain_method": "guess"}, "explain_method"),
        ({"explain_method": 3}, "explain_method"),
        ({"conditional": "perhaps"}, "conditional"),
    ],
)
def test_wrong_parameters_are_named(given: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        read_parameters(given)


@pytest.mark.parametrize(
    ("error", "http", "grpc"),
    [
        (InputError("x"), 400, "INVALID_ARGUMENT"),
        (TooLargeError("x"), 413, "RESOURCE_EXHAUSTED"),
        (UnsupportedMediaError("x"), 415, "INVALID_ARGUMENT"),
        (ServerError("x"), 503, "UNAVAILABLE"),
        (BundleError("x"), 500, "INTERNAL"),
        (ValueError("x"), 500, "INTERNAL"),
    ],
)
def test_status_table(error: Exception, http: int, grpc: str) -> None:
    assert (status_of(error).http, status_of(error).grpc) == (http, grpc)


@pytest.mark.parametrize(
    "error", [BundleError("/srv/secret/x is missing"), ServerError("/srv/secret"), OSError("/srv/secret")]
)
def test_answers_name_no_paths(error: Exception) -> None:
    assert "secret" not in str(error_body(error))


@pytest.mark.parametrize("error", [InputError("a", "b"), TooLargeError("a", "b"), BackendError("a", "b")])
def test_errors_survive_the_wire(error: InputError | BackendError) -> None:
    again = error_from(error_body(error)["error"])
    assert (type(again), again.message, again.cure) == (type(error), error.message, error.cure)
