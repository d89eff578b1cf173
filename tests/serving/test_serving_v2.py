"""The Open Inference Protocol codec."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from serving.codecs.tensors import DATATYPES, datatype_of
from serving.codecs.v2 import Message, parse, write
from slicewise.errors import InputError

NUMBERS = st.sampled_from(list(DATATYPES.values())).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
)
STRINGS = st.lists(st.binary(max_size=40), max_size=5).map(lambda items: as_objects(items))
NAMES = st.text(min_size=1, max_size=12)


def as_objects(items: list[bytes]) -> NDArray[Any]:
    array = np.empty(len(items), dtype=np.object_)
    array[:] = items
    return array


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(NAMES, NUMBERS | STRINGS, min_size=1, max_size=4))
def test_binary_round_trip(tensors: dict[str, NDArray[Any]]) -> None:
    body, length = write(Message(tensors, {"threshold": 0.5}, "id-1"), "inputs", binary=True)
    again = parse(body, length, "inputs")
    assert again.binary
    assert (again.id, again.parameters) == ("id-1", {"threshold": 0.5})
    assert list(again.tensors) == list(tensors)
    for name, array in tensors.items():
        assert datatype_of(again.tensors[name]) == datatype_of(array)
        assert again.tensors[name].shape == array.shape
        if array.dtype == np.object_:
            assert again.tensors[name].tolist() == array.tolist()
        else:
            assert again.tensors[name].tobytes() == array.tobytes()


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.float32, (2, 1, 3, 2), elements=st.floats(-1e6, 1e6, width=32)))
def test_json_round_trip(array: NDArray[np.float32]) -> None:
    body, length = write(Message({"image": array}), "inputs", binary=False)
    assert length is None
    np.testing.assert_array_equal(parse(body, None, "inputs").tensors["image"], array)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.integers(-5, 250))
def test_garbage_is_an_input_error(body: bytes, length: int) -> None:
    with pytest.raises(InputError):
        parse(body, length, "inputs")


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 400), st.binary(min_size=1, max_size=4))
def test_damaged_messages_are_input_errors_or_other_numbers(at: int, junk: bytes) -> None:
    body, length = write(Message({"image": np.zeros((1, 1, 4, 4), np.float32)}), "inputs", binary=True)
    damaged = body[:at] + junk + body[at + len(junk) :]
    try:
        parse(damaged, length, "inputs")
    except InputError:
        return


def tensor(**changes: Any) -> dict[str, Any]:
    return {"name": "image", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]} | changes


@pytest.mark.parametrize(
    ("request_", "named"),
    [
        ({}, "inputs must be"),
        ({"inputs": []}, "inputs must be"),
        ({"inputs": [3]}, r"inputs\[0\].name"),
        ({"inputs": [tensor(datatype="FP8")]}, r"inputs\[0\].datatype: 'FP8'"),
        ({"inputs": [tensor(shape=[-1, 2])]}, r"inputs\[0\].shape"),
        ({"inputs": [tensor(shape=[1] * 9)]}, r"inputs\[0\].shape"),
        ({"inputs": [tensor(data=[1, 2, 3])]}, r"inputs\[0\].data: 3 elements"),
        ({"inputs": [tensor(data=[[1], [2, 3]])]}, r"inputs\[0\].data"),
        ({"inputs": [tensor(data="x")]}, r"inputs\[0\].data must be a list"),
        ({"inputs": [tensor(datatype="UINT8", data=[1, 300])]}, r"inputs\[0\].data"),
        ({"inputs": [tensor(datatype="BYTES", data=["a?", "b"])]}, r"inputs\[0\].data\[0\] is not base64"),
        ({"inputs": [tensor(), tensor()]}, "comes twice"),
        ({"inputs": [tensor(parameters={"binary_data_size": 8})]}, "binary_data_size: 8, but 0 bytes"),
        ({"inputs": [tensor()], "parameters": [1]}, "parameters must be"),
        ({"inputs": [tensor()], "outputs": ["mask"]}, "outputs must be"),
    ],
)
def test_errors_name_the_field(request_: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        parse(orjson.dumps(request_), None, "inputs")


def test_cut_byte_strings_are_named() -> None:
    body, length = write(Message({"image_bytes": as_objects([b"abcdef"])}), "inputs", binary=True)
    shorter = orjson.loads(body[:length])
    shorter["inputs"][0]["parameters"]["binary_data_size"] -= 2
    head = orjson.dumps(shorter)
    with pytest.raises(InputError, match=r"inputs\[0\]: cut off at byte 0"):
        parse(head + body[length:-2], len(head), "inputs")


def test_trailing_bytes_are_refused() -> None:
    body, length = write(Message({"image": np.zeros(3, np.float32)}), "inputs", binary=True)
    with pytest.raises(InputError, match="5 bytes follow"):
        parse(body + b"12345", length, "inputs")


def test_not_a_number_has_no_json() -> None:
    body, _ = write(Message({"p": np.array([np.nan, 1], np.float32)}), "outputs", binary=False)
    assert orjson.loads(body)["outputs"][0]["data"] == [None, 1]
