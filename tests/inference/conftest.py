"""The small phantom data set, and a whole run on it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

# The data set is made once for all folders, so its module is found from all of them.
sys.path.insert(0, str(Path(__file__).parents[1] / "slices"))

from small_run import SmallData, SmallRun, make_small_data, make_small_run


@pytest.fixture(scope="session")
def small() -> SmallData:
    """A phantom data set of 8 studies, its store and its split."""
    return make_small_data()


@pytest.fixture(scope="session")
def run() -> SmallRun:
    """What a whole run on that data set leaves."""
    return make_small_run()
