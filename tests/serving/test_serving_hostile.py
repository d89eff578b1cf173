"""Hostile files and bodies by every protocol of a running stack: refused, told why, and nothing else happens."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hostile_files as files
import httpx
import numpy as np
import psutil
import pytest
from carriers import Came, Carriers
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.gateway.sdk import messages
from serving.state import StackState

# Python's tracebacks, and paths of this program, of its temporary files and of its libraries.
INSIDES = re.compile(r'Traceback|File "|/tmp/|/usr/|/home/|site-packages|\.py\b')
REFUSED = {400, 413, 415}
# Both servers together, over all that this module sends them: gigabytes, if they believed it.
GROWTH_MB = 700
WAYS = ("form", "raw", "json", "study", "v1", "v2 json", "v2 binary", "grpc", "predictions")
NOISE = np.random.default_rng(5).integers(0, 255, (48, 40), np.uint8)


@pytest.fixture(scope="module")
def carriers(stack: StackState) -> Iterator[Carriers]:
    """The stack, whose memory's peak may not have grown much at the end, and which answers then as before."""
    carriers = Carriers(stack)
    before = {way: send(files.picture()) for way, send in carriers.file_ways.items()}
    held = _peaks_mb(stack)
    yield carriers
    for way, send in carriers.file_ways.items():
        after = send(files.picture())
        assert after.status == 200, (way, after)
        assert after.probability == pytest.approx(before[way].probability, abs=1e-6)
    peaks = _peaks_mb(stack)
    carriers.close()
    assert set(peaks) == set(held), "a process died and was started again"
    assert sum(peaks.values()) - sum(held.values()) < GROWTH_MB


def _peaks_mb(stack: StackState) -> dict[int, int]:
    """The largest resident size that each process of the stack ever had."""
    root = psutil.Process(stack.pid)
    texts = {one.pid: Path(f"/proc/{one.pid}/status") for one in (root, *root.children(recursive=True))}
    return {pid: int(re.search(r"VmHWM:\s+(\d+)", path.read_text())[1]) >> 10 for pid, path in texts.items()}  # type: ignore[index]


def require_refused(came: Came, statuses: set[int] = REFUSED) -> None:
    assert came.status in statuses, came
    require_discreet(came.text)
    assert '"cure"' in came.text or " — " in came.text, came
    assert len(came.text) < 2000


def require_discreet(text: str) -> None:
    assert not INSIDES.search(text), text[:500]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    dicom = files.dicom(tmp_path_factory.mktemp("dicom"))
    wild = np.where(files.slice_image() > 9, np.inf, 1.0).astype(np.float32)
    objects = b"{'descr': '|O', 'fortran_order': False, 'shape': (8, 8), }".ljust(117) + b"\n"
    return {
        "empty": b"",
        "html": b"<html>",
        "gif": files.animation("GIF"),
        "truncated png": files.picture(array=NOISE)[:900],
        "truncated jpeg": files.picture("JPEG")[:300],
        "truncated dicom": dicom[: len(dicom) - 90],
        "truncated nifti": files.nifti()[:500],
        "truncated gzip": files.gzip.compress(files.nifti())[:120],
        "truncated npz": files.npz(t1=NOISE)[:300],
        "truncated npy": files.npy(NOISE)[:300],
        "animated png": files.animation("PNG"),
        "one pixel": files.picture(array=np.full((1, 1), 9, np.uint8)),
        "20,000 pixels a side": files.png_that_claims(20_000, 20_000),
        "more pixels than memory": files.png_that_claims(2**31 - 1, 2**31 - 1),
        "text bomb": files.png_with_a_huge_text(),
        "gzip bomb": files.gzip_bomb(),
        "npz bomb": files.npz_bomb(),
        "zip bomb": files.zip_that_unpacks_to("a.nii", files.nifti()[:352], 2048),
        "zip slip": files.zip_of(__evil=files.picture()),
        "not a number": files.npy(np.full((8, 8), np.nan, np.float32)),
        "infinite": files.npy(wild),
        "more than float32": files.npy(np.where(files.slice_image() > 9, 1e300, 1.0)),
        "complex": files.npy(np.ones((8, 8), complex)),
        "pickled": b"\x93NUMPY\x01\x00v\x00" + objects + bytes(50),
    }


@pytest.mark.parametrize("way", WAYS)
def test_hostile_files_are_refused(way: str, carriers: Carriers, hostile: dict[str, bytes]) -> None:
    for data in hostile.values():
        require_refused(carriers.file_ways[way](data))


@pytest.mark.parametrize("way", WAYS)
def test_unusual_pictures_are_read(way: str, carriers: Carriers) -> None:
    deep = files.slice_image().astype(np.uint16) * 200
    unusual = [files.picture(array=deep), *(files.picture(mode=mode) for mode in ("P", "LA", "RGBA", "1"))]
    for data in unusual:
        came = carriers.file_ways[way](data)
        assert came.status == 200, came
        assert came.probability is not None
        assert 0 <= came.probability <= 1


DEEP = "[" * 100_000 + "]" * 100_000
DEEPER_THAN_WRITTEN = "[" * 900 + "1" + "]" * 900
HUGE = "1" + "0" * 400
ROUTES = {
    "/classify": '{"image": %s}',
    "/segment/uncertainty": '{"image": %s}',
    "/patient/analyze_stack": '{"images": [%s]}',
    "/v1/models/slicewise:predict": '{"instances": [{"image": %s}]}',
    "/v1/models/slicewise:explain": '{"instances": [{"image": %s}]}',
    "/v2/models/slicewise/infer": '{"inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 1, 2, 2], '
    '"data": %s}]}',
    "/predictions": '{"instances": [{"image": %s}]}',
}
VALUES = {
    "deep": DEEP,
    "deep and open": DEEP[:100_000],
    "deeper than is written": DEEPER_THAN_WRITTEN,
    "1e400": "[[1e400, 2], [3, 4]]",
    "10**400": f"[[{HUGE}, 2], [3, 4]]",
    "NaN": "[[NaN, 2], [3, 4]]",
    "null": "null",
    "ragged": "[[1, 2], [3]]",
    "object": '{"b64": 1}',
    "lone surrogate": '"\\ud800"',
    "not base64": '"%%%"',
    "nothing": "[]",
}


@pytest.mark.parametrize("path", ROUTES)
def test_hostile_json_is_refused(path: str, carriers: Carriers) -> None:
    bodies = {name: (ROUTES[path] % value).encode() for name, value in VALUES.items()}
    whole = ROUTES[path] % "[[1, 2], [3, 4]]"
    bodies |= {"utf-16": whole.encode("utf-16"), "latin-1": b'{"image": "\xe9"}', "nul": b"\0", "number": b"1"}
    bodies |= {"no field": b"{}", "bare": DEEP.encode(), "cut": whole[:-1].encode()}
    for body in bodies.values():
        require_refused(_first_error(post_json(carriers, path, body)))


def post_json(carriers: Carriers, path: str, body: bytes) -> Came:
    if path == "/predictions":
        return carriers.predictions(body, "application/json")
    return carriers.post(path, content=body, headers={"content-type": "application/json"})


def _first_error(came: Came) -> Came:
    """V1 answers a bad instance in its place."""
    predictions = json.loads(came.text).get("predictions", []) if came.status == 200 else []
    return Came(400, came.text) if predictions and "error" in predictions[0] else came


def test_the_last_of_two_equal_keys_counts_everywhere(carriers: Carriers) -> None:
    rows = json.dumps(files.slice_image().tolist())
    came = [
        post_json(carriers, "/classify", f'{{"image": 1, "image": {rows}}}'.encode()),
        post_json(carriers, "/predictions", f'{{"instances": 1, "instances": [{{"image": {rows}}}]}}'.encode()),
    ]
    assert [one.status for one in came] == [200, 200], came
    assert came[0].probability == pytest.approx(came[1].probability, abs=1e-6)


@pytest.mark.parametrize("kind", ["text/css", "image/tiff", "application/x-www-form-urlencoded", "nonsense"])
def test_other_content_types(kind: str, carriers: Carriers) -> None:
    for path in ("/classify", "/segment/batch", "/patient/analyze_stack", "/predict/async"):
        came = carriers.post(path, content=b"a=1", headers={"content-type": kind})
        require_refused(came, {415})


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"name": "picture"}, "image"),
        ({"name": None}, "name"),
        ({"datatype": "FP128"}, "datatype"),
        ({"datatype": []}, "datatype"),
        ({"datatype": "BYTES"}, "data"),
        ({"shape": [1, 1, 3, 2]}, "shape"),
        ({"shape": [4], "data": [1, 2, 3, 4]}, "image has FP32 [4]"),
        ({"shape": [-1, 1, 2, 2]}, "shape"),
        ({"shape": [0, 1, 2, 2], "data": []}, "image"),
        ({"shape": [2**31 - 1] * 4}, "shape"),
        ({"shape": "1,1,2,2"}, "shape"),
        ({"data": [None, 1, 2, 3]}, "NaN"),
        ({"data": [-1, 1, 2, 3], "datatype": "UINT8"}, "data"),
        ({"data": "AAAA"}, "data"),
        ({"parameters": [1]}, "parameters"),
        ({"parameters": {"binary_data_size": 16}}, "binary_data_size"),
        ({"parameters": {"threshold": {"a": []}}}, "threshold"),
        ({"parameters": {"tasks": "uncertainty", "n_mc_samples": 10**6}}, "n_mc_samples"),
        ({"parameters": {"tresholt": 1}}, "tresholt"),
    ],
)
def test_wrong_tensors_are_named(fields: dict[str, Any], named: str, carriers: Carriers) -> None:
    good = {"name": "image", "datatype": "FP32", "shape": [1, 1, 2, 2], "data": [1, 2, 3, 4]}
    came = carriers.v2_json(good | fields)
    require_refused(came)
    assert named in came.text, came


@pytest.mark.parametrize("length", ["-1", "0", "x", "1e9", "99999999999999999999", "7", "²", "٣", "9" * 5000])
def test_wrong_lengths_of_the_binary_head(length: str, carriers: Carriers) -> None:
    headers = {"inference-header-content-length": length.encode()}
    require_refused(carriers.post("/v2/models/slicewise/infer", content=b'{"inputs": []}xxxx', headers=headers))


@pytest.mark.parametrize(
    ("tensor", "raw"),
    [
        ({"name": "image", "datatype": "FP32", "shape": [1, 1, 2, 2]}, [bytes(15)]),
        ({"name": "image", "datatype": "FP32", "shape": [2**62, 2**62]}, [bytes(16)]),
        ({"name": "image", "datatype": "FP32", "shape": [-1, 1, 2, 2]}, [bytes(16)]),
        ({"name": "image", "datatype": "FP128", "shape": [1, 1, 2, 2]}, [bytes(16)]),
        ({"name": "image", "datatype": "FP32", "shape": [1, 1, 2, 2]}, [np.full(4, np.nan, np.float32).tobytes()]),
        ({"name": "image", "datatype": "FP32", "shape": [1, 1, 2, 2]}, []),
        ({"name": "image", "datatype": "FP32", "shape": [1, 1, 2, 2]}, [bytes(16), bytes(16)]),
        ({"name": "image", "datatype": "BOOL", "shape": [1, 1, 2, 2]}, [b"\7\7\7\7"]),
        ({"name": "picture", "datatype": "FP32", "shape": [1]}, [bytes(4)]),
        ({"name": "image_bytes", "datatype": "BYTES", "shape": [1]}, [b"\xff\xff\xff\xff"]),
        ({"name": "image_bytes", "datatype": "BYTES", "shape": [2]}, [b"\1\0\0\0x"]),
        ({"name": "", "datatype": "", "shape": []}, []),
    ],
)
def test_wrong_grpc_tensors_are_refused(tensor: dict[str, Any], raw: list[bytes], carriers: Carriers) -> None:
    request = messages.ModelInferRequest(model_name="slicewise", raw_input_contents=raw)
    request.inputs.add(**tensor)
    require_discreet((came := carriers.rpc_message(request)).text)
    assert came.status in REFUSED, came
    assert came.text.startswith("INVALID_ARGUMENT: "), came


def test_grpc_without_inputs_or_model(carriers: Carriers) -> None:
    assert carriers.rpc_message(messages.ModelInferRequest(model_name="slicewise")).status == 400
    assert carriers.rpc_message(messages.ModelInferRequest(model_name="other")).status == 404


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
FIELDS = ("image", "images", "files", "instances", "inputs", "parameters", "outputs", "id", "modalities", "threshold")


@settings(max_examples=40, deadline=None, derandomize=True)
@given(body=st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=4), path=st.sampled_from(sorted(ROUTES)))
def test_any_json_is_answered(body: dict[str, Any], path: str, carriers: Carriers) -> None:
    came = post_json(carriers, path, json.dumps(body).encode())
    assert came.status < 500, came
    require_discreet(came.text)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    at=st.floats(0, 1),
    wrong=st.binary(min_size=1, max_size=6),
    share=st.floats(0.1, 1),
    kind=st.sampled_from(["png", "npy", "npz", "nifti"]),
    way=st.sampled_from(WAYS),
)
def test_damaged_files_are_answered(
    at: float, wrong: bytes, share: float, kind: str, way: str, carriers: Carriers
) -> None:
    whole = {
        "png": files.picture(array=NOISE),
        "npy": files.npy(NOISE),
        "npz": files.npz(t1=NOISE),
        "nifti": files.nifti(),
    }[kind]
    data = bytearray(whole)
    start = int(at * (len(data) - 1))
    data[start : start + len(wrong)] = wrong
    came = carriers.file_ways[way](bytes(data[: int(len(data) * share)]))
    assert came.status < 500, came
    require_discreet(came.text)


def test_a_good_request_is_answered_after_a_broken_connection(stack: StackState, carriers: Carriers) -> None:
    def half() -> Iterator[bytes]:
        yield files.picture(array=NOISE)[:300]
        raise InterruptedError

    with pytest.raises(InterruptedError):
        httpx.post(f"{stack.gateway_url}/classify", content=half(), trust_env=False, timeout=10)
    assert carriers.file_ways["form"](files.picture()).status == 200
