"""The small phantom data set for the tests of the slices."""

from __future__ import annotations

import pytest
from small_run import SmallData, make_small_data


@pytest.fixture(scope="session")
def small() -> SmallData:
    """A phantom data set of 8 studies, its store and its split."""
    return make_small_data()
