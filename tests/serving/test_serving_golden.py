"""Every protocol against its golden file; see golden/README.md for what is compared and how it is written again."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from golden_exchanges import differences, exchange, requests

from serving.state import StackState

FOLDER = Path(__file__).parent / "golden"
REQUESTS = requests()


def test_the_folder_holds_these_and_no_others() -> None:
    assert {path.stem for path in FOLDER.glob("*.json")} == set(REQUESTS)


@pytest.mark.parametrize("name", REQUESTS)
def test_the_recipe_makes_the_golden_request(name: str, write_golden: bool) -> None:
    if not write_golden:
        golden = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
        assert golden["request"] == REQUESTS[name]


@pytest.mark.parametrize("name", REQUESTS)
def test_the_answer_is_the_golden_one(name: str, stack: StackState, write_golden: bool) -> None:
    path = FOLDER / f"{name}.json"
    request = REQUESTS[name] if write_golden else json.loads(path.read_text(encoding="utf-8"))["request"]
    answer = exchange(request, stack)
    if write_golden:
        text = json.dumps({"request": request, "answer": answer}, indent=1)
        # A mask's pixels on one line.
        text = re.sub(r"\[[\d\s,]+\]", lambda found: re.sub(r"\s+", "", found[0]), text)
        path.write_text(text + "\n", encoding="utf-8")
    golden = json.loads(path.read_text(encoding="utf-8"))["answer"]
    assert differences(golden, answer) == []
