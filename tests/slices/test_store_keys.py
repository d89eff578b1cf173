"""Folder names for studies."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slicewise.slices.store import study_key, study_keys
from slicewise.slices.store_keys import KEY_PATTERN, WINDOWS_DEVICES

names = (
    st.text()
    | st.text(alphabet="aA._- é/\\", max_size=12)
    | st.sampled_from(["con", "NUL.nii", "..", "", "a." * 150])
)


@pytest.mark.parametrize("name", ["BraTS2021_01476", "Brats18_2013_3_1", "TCGA_HT_7473", "Y1.jpg", "case-7"])
def test_an_ordinary_id_is_its_own_key(name: str) -> None:
    assert study_key(name) == name


@pytest.mark.parametrize(
    "name",
    ["a b", "a/b", "../a", "..", ".", "", ".hidden", "-rf", "dot.", "con", "Aux.nii", "lpt1", "é", "a" * 250, "a\n"],
)
def test_any_other_id_gets_a_safe_name_with_a_mark(name: str) -> None:
    assert re.search(r"-[0-9a-f]{8}$", study_key(name))


@given(name=names)
def test_keys_are_safe_on_every_file_system(name: str) -> None:
    key = study_key(name)
    assert re.fullmatch(KEY_PATTERN[1:-1], key)
    assert len(key) <= 128
    assert not key.endswith(".")
    assert not WINDOWS_DEVICES.fullmatch(key)
    assert key == study_key(name)


@given(some=st.sets(names, max_size=8))
def test_no_two_studies_share_a_folder(some: set[str]) -> None:
    """Not even where ``Y1`` and ``y1`` are one folder."""
    keys = study_keys(some)
    assert keys.keys() == some
    assert len({key.casefold() for key in keys.values()}) == len(some)
    assert all(re.fullmatch(KEY_PATTERN[1:-1], key) for key in keys.values())


def test_ids_that_differ_in_case_alone_are_marked_in_any_order() -> None:
    keys = study_keys(["Y1", "y1", "Y2"])
    assert keys["Y2"] == "Y2"
    assert keys["Y1"].startswith("Y1-")
    assert keys["y1"].startswith("y1-")
    assert study_keys(["Y2", "y1", "Y1"]) == keys
