"""Each tab's main path in a real browser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Open = Callable[..., Any]


def done(page: Any, tab: str) -> Any:
    """The tab's panel, once nothing in it is under way."""
    panel = page.locator(f"#panel-{tab}")
    panel.locator(".result:not([aria-busy]) .verdict").wait_for()
    return panel


def test_a_sample_is_classified_with_its_probability_on_the_scale(open_page: Open) -> None:
    page = open_page("classification")
    page.locator("#panel-classification .sample").first.click()
    panel = done(page, "classification")
    scale = panel.locator("svg.scale").get_attribute("aria-label")
    assert "threshold 50.0 %" in scale
    assert "band of doubt from 30.0 % to 70.0 %" in scale
    assert panel.locator(".verdict strong").inner_text() in scale
    assert panel.locator("svg.scale .zone-unsure").bounding_box()["width"] > 50
