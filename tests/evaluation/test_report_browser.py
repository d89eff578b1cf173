"""The report in a real browser: paging, links, sorting, a phone's width, and no word from the page's policy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from metrics_v2 import make_metrics
from report_page import made_slice

from slicewise.evaluation.overlays import draw_study, save_picture
from slicewise.evaluation.report import write_report
from slicewise.evaluation.shown_studies import list_studies, worst_first

SLICES = 3


@pytest.fixture(scope="module")
def metrics() -> dict[str, Any]:
    return make_metrics(8, skill=0.7)


@pytest.fixture(scope="module")
def address(metrics: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> str:
    folder: Path = tmp_path_factory.mktemp("browser")
    for at, study in enumerate(metrics["studies"]):
        study["pictures"] = []
        for z in range(SLICES):
            picture = draw_study(modalities=("flair", "t1ce"), title=study["study"], **made_slice(at))
            name = f"pictures/{at}/{z}.webp"
            save_picture(picture, folder / name)
            study["pictures"].append({"file": name, "z": z, "caption": f"Slice {z}"})
    return write_report(metrics, folder).as_uri()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    opened = context.new_page()
    messages: list[str] = []
    opened.on("console", lambda message: messages.append(message.text))
    opened.on("pageerror", lambda error: messages.append(str(error)))
    opened.on("request", lambda request: messages.append(request.url) if request.url.startswith("http") else None)
    opened.goto(address)
    yield opened
    assert messages == []  # no error, nothing that the policy blocked, no request to a host
    context.close()


def seen(page: Any) -> tuple[str, str]:
    """The study and the slice in the viewer."""
    return page.locator(".shot.on h3").inner_text(), page.locator(".place").inner_text()


def test_arrow_keys_page_through_slices_and_on_to_the_next_study(page: Any, metrics: dict[str, Any]) -> None:
    names = [study.name for study in worst_first(list_studies(metrics))]
    page.locator(".viewer").scroll_into_view_if_needed()
    assert seen(page) == (names[0], "slice 2 of 3")
    page.keyboard.press("ArrowRight")
    assert seen(page) == (names[0], "slice 3 of 3")
    page.keyboard.press("ArrowRight")
    assert seen(page) == (names[1], "slice 1 of 3")
    page.keyboard.press("ArrowLeft")
    assert seen(page) == (names[0], "slice 3 of 3")
    page.keyboard.press("Shift+ArrowLeft")
    assert seen(page) == (names[-1], "slice 2 of 3")
    assert page.locator(".shot.on .slice.on").count() == 1
    assert page.locator(".slice.on img:visible").count() == 1


def test_buttons_and_the_list_do_the_same(page: Any, metrics: dict[str, Any]) -> None:
    names = [study.name for study in worst_first(list_studies(metrics))]
    page.get_by_role("button", name="next study").click()
    page.get_by_role("button", name="next slice").click()
    assert seen(page) == (names[1], "slice 3 of 3")
    page.locator(".viewer select").select_option(index=4)
    assert seen(page) == (names[4], "slice 2 of 3")


def test_arrow_keys_are_left_alone_where_no_picture_is_in_sight(page: Any) -> None:
    before = seen(page)
    page.locator("#paperwork").scroll_into_view_if_needed()
    page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    page.keyboard.press("ArrowRight")
    assert seen(page) == before


def test_a_dot_leads_to_the_patients_pictures_and_back_to_its_row(page: Any, metrics: dict[str, Any]) -> None:
    study = next(s for s in list_studies(metrics) if s.dice is not None)
    page.locator(f'#plot-dice a[href="#{study.pictures}"]').first.click()
    assert seen(page)[0] == study.name
    assert page.locator(f"#{study.pictures} img").nth(1).is_visible()
    page.locator(".shot.on a", has_text="all figures").click()
    assert page.evaluate("location.hash") == f"#{study.row}"
    page.locator(f"#{study.row} a").first.click()
    assert seen(page)[0] == study.name


def test_an_address_with_a_study_opens_it(browser: Any, address: str, metrics: dict[str, Any]) -> None:
    study = list_studies(metrics)[5]
    page = browser.new_page()
    page.goto(f"{address}#{study.pictures}")
    assert seen(page)[0] == study.name
    page.close()


def test_the_table_is_sorted_by_number_with_empty_cells_last(page: Any, metrics: dict[str, Any]) -> None:
    column = page.locator("#studies th", has_text="WT Dice")
    column.locator("button").click()
    names = page.locator("#studies tbody tr td:first-child").all_inner_texts()
    scored = sorted((s for s in list_studies(metrics) if s.dice is not None), key=lambda s: s.region("WT")["dice"])
    assert names[: len(scored)] == [study.name for study in scored]
    assert column.get_attribute("aria-sort") == "ascending"
    column.locator("button").click()
    names = page.locator("#studies tbody tr td:first-child").all_inner_texts()
    assert names[: len(scored)] == [study.name for study in reversed(scored)]


def test_a_phone_scrolls_in_one_direction(browser: Any, address: str) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True)
    page = context.new_page()
    page.goto(address)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    button = page.get_by_role("button", name="next slice")
    assert button.bounding_box()["height"] >= 38  # a finger's width, nearly
    button.tap()
    assert seen(page)[1] == "slice 3 of 3"
    context.close()


def test_without_scripts_every_picture_is_there(browser: Any, address: str, metrics: dict[str, Any]) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address)
    assert page.locator(".slice img:visible").count() == SLICES * len(metrics["studies"])
    assert page.locator(".viewer .bar:visible").count() == 0
    context.close()
