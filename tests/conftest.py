"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from real_browser import real_browser
from small_run import SmallData, SmallRun, make_small_data, make_small_run

# As the command line does: spinning threads slow everything down when tests run side by side.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# No test is judged by the clock: a busy machine is no fault.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


# Files of few and long tests: begun last, they would keep one process busy while the others are done.
LONG = ("test_pipelines_end_to_end.py", "test_training_ranks.py", "test_serving_processes.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first; all others stay in their order."""
    items.sort(key=lambda item: item.path.name not in LONG)


def pytest_make_parametrize_id(val: object) -> str | None:
    """Short names for bytes, alike in every process: archives hold the time at which they were made."""
    return f"{len(val)}-bytes" if isinstance(val, bytes) else None


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real scans; tests that need it are skipped where it is absent."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("SLICEWISE_TEST_DATA", default))
    if not folder.is_dir():
        pytest.skip("no real scans here: set SLICEWISE_TEST_DATA to a folder with brats/, lgg/ and kaggle/")
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One for a file of tests: Playwright's loop cannot run twice in a process, and while it runs no other can."""
    with real_browser() as opened:
        yield opened


@pytest.fixture(scope="session")
def small() -> SmallData:
    """A phantom data set of 8 studies, its store and its split."""
    return make_small_data()


@pytest.fixture(scope="session")
def small_run() -> SmallRun:
    """What a whole run on that data set leaves."""
    return make_small_run()
