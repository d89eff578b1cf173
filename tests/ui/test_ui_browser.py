"""Each tab's main path in a real browser, before a real gateway and a real TorchServe."""

from __future__ import annotations

import base64
import csv
import io
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from serving.ports import free_port
from serving.state import StackState
from serving.ui import samples

Open = Callable[..., Any]
PHONE = 375


def panel_of(page: Any, tab: str) -> Any:
    return page.locator(f"#panel-{tab}")


def done(page: Any, tab: str) -> Any:
    """The tab's panel, once nothing in it is under way."""
    panel = panel_of(page, tab)
    panel.locator(".result:not([aria-busy]) .verdict").wait_for()
    return panel


def sampled(page: Any, tab: str, at: int = 0) -> Any:
    """The panel after the analysis of a sample."""
    panel_of(page, tab).locator(".sample").nth(at).click()
    return done(page, tab)


def upload(name: str, content: bytes, kind: str = "application/octet-stream") -> dict[str, Any]:
    return {"name": name, "mimeType": kind, "buffer": content}


def npy(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def png(array: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def slice_png() -> bytes:
    """A phantom's slice as a picture."""
    return samples.content(samples.listing()[0]["picture"])


def drawn(canvas: Any) -> NDArray[np.uint8]:
    """A canvas's pixels ``[H, W, 3]``."""
    address = canvas.evaluate("node => node.toDataURL('image/png')")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))).convert("RGB"))


def move(slider: Any, value: float) -> None:
    slider.evaluate("(node, value) => { node.value = value; node.dispatchEvent(new Event('input')); }", value)


def cells(panel: Any, caption: str) -> dict[str, list[str]]:
    """A table's rows by their head."""
    table = panel.locator("table", has=panel.page.locator("caption", has_text=caption))
    rows = table.locator("tbody tr").all()
    return {row.locator("th").inner_text(): row.locator("td").all_inner_texts() for row in rows}


def test_a_sample_is_classified_with_its_probability_on_the_scale(open_page: Open) -> None:
    page = open_page("classification")
    panel = sampled(page, "classification")
    scale = panel.locator("svg.scale").get_attribute("aria-label")
    assert "threshold 50.0 %" in scale
    assert "band of doubt from 30.0 % to 70.0 %" in scale
    assert panel.locator(".verdict strong").inner_text() in scale
    unsure, bar = (panel.locator(f"svg.scale .zone-{name}").bounding_box() for name in ("unsure", "no"))
    assert unsure["width"] == pytest.approx(bar["width"] * 4 / 3, rel=0.02)  # 0.3 to 0.7 beside 0 to 0.3


def test_the_opacity_of_grad_cam_goes_from_the_bare_scan_to_colour(open_page: Open) -> None:
    page = open_page("classification")
    panel = sampled(page, "classification")
    canvas, opacity = panel.locator("canvas.slice"), panel.get_by_label("Grad-CAM opacity")
    move(opacity, 0)
    grey = drawn(canvas).astype(int)
    assert np.ptp(grey, axis=2).max() == 0
    assert grey.max() > 100
    move(opacity, 1)
    assert np.ptp(drawn(canvas).astype(int), axis=2).max() > 60


def test_a_failed_upload_says_what_is_wrong_and_how_to_cure_it(open_page: Open) -> None:
    page = open_page("classification")
    panel = panel_of(page, "classification")
    panel.locator("input[type=file]").set_input_files(upload("notes.txt", b"no picture at all"))
    error = panel.get_by_role("alert")
    assert "not a PNG, JPEG or npy file" in error.inner_text()
    panel.locator("input[type=file]").set_input_files(upload("slice.png", slice_png()))
    assert done(page, "classification").locator(".error").count() == 0


def test_dice_is_right_whatever_the_values_of_the_mask(open_page: Open, stack: StackState) -> None:
    slice_ = slice_png()
    answer = httpx.post(
        f"{stack.gateway_url}/segment/uncertainty", files={"file": ("s.png", slice_)}, timeout=60
    ).json()
    masks = {
        name: np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))) > 0 for name, text in answer["masks"].items()
    }
    wanted = masks["WT"].copy()
    wanted[: wanted.shape[0] // 2] = False  # half of the truth is missing
    expected = 2 * (masks["WT"] & wanted).sum() / (masks["WT"].sum() + wanted.sum())
    assert 0.1 < expected < 0.95
    page = open_page("segmentation")
    panel = panel_of(page, "segmentation")
    files = panel.locator("input[type=file]")
    files.nth(0).set_input_files(upload("slice.png", slice_))
    done(page, "segmentation")
    for name, content in (("mask.png", png(wanted.astype(np.uint8) * 255)), ("mask.npy", npy(wanted))):
        files.nth(1).set_input_files(upload(name, content))
        page.get_by_text("Ground truth read as one region").wait_for()
        areas = cells(done(page, "segmentation"), "Area by region")
        assert float(areas["WT, whole tumour"][-1]) == pytest.approx(expected, abs=6e-4)
        assert areas["TC, tumour core"][-1] == "not told"
    labels = np.zeros(wanted.shape, np.uint8)
    labels[masks["WT"]], labels[:40] = 2, 0
    labels[60:70, 60:70], labels[62:66, 62:66] = 1, 3  # newer sets write 3 for enhancing tumour
    files.nth(1).set_input_files(upload("labels.npy", npy(labels)))
    page.get_by_text("Ground truth read as BraTS").wait_for()
    areas = cells(done(page, "segmentation"), "Area by region")
    for head, name, values in (("WT, whole", "WT", (1, 2, 3)), ("TC, tumour", "TC", (1, 3)), ("ET, enh", "ET", (3,))):
        truth = np.isin(labels, values)
        row = next(row for title, row in areas.items() if title.startswith(head))
        dice = 2 * (masks[name] & truth).sum() / (masks[name].sum() + truth.sum())
        assert float(row[-1]) == pytest.approx(dice, abs=6e-4)
        assert int(row[0]) == masks[name].sum()
    files.nth(1).set_input_files(upload("other.npy", npy(labels[:-1])))
    page.get_by_text("send the mask of this slice").wait_for()


def test_regions_maps_and_areas_of_a_sample(open_page: Open) -> None:
    page = open_page("segmentation")
    panel = sampled(page, "segmentation")
    canvas = panel.locator("canvas.slice")
    panel.get_by_label("Ground truth (white dashes)").select_option("")
    move(panel.get_by_label("Fill"), 0)
    full = drawn(canvas)
    for name in ("WT, whole tumour", "TC, tumour core", "ET, enhancing tumour"):
        panel.get_by_label(name).uncheck()
    bare = drawn(canvas).astype(int)
    assert np.ptp(bare, axis=2).max() == 0
    assert (full != bare).any()
    maps = panel.locator("select", has=page.locator("option", has_text="Probability of WT"))
    before = bare
    for title in ("Probability of WT", "Uncertainty, all"):
        maps.select_option(title)
        after = drawn(canvas).astype(int)
        assert (before != after).any()
        before = after
    pixels, mm2, *_ = cells(panel, "Area by region")["WT, whole tumour"]
    assert float(mm2) == pytest.approx(int(pixels) * 1.5 * 1.5, abs=1)


def test_an_inner_region_lies_on_top_of_the_one_around_it(open_page: Open) -> None:
    page = open_page("classification")
    colours = page.evaluate(
        """async () => {
          const { COLOURS, fillRegions, rgb } = await import("./layers.js");
          const canvas = document.createElement("canvas");
          canvas.width = canvas.height = 3;
          const context = canvas.getContext("2d", { willReadFrequently: true });
          fillRegions(context, 3, 1, { WT: () => true, TC: i => i > 0, ET: i => i > 1 }, 1);
          const seen = [0, 1, 2].map(x => [...context.getImageData(x, 1, 1, 1).data].slice(0, 3));
          return { seen, wanted: ["WT", "TC", "ET"].map(name => rgb(COLOURS[name])) };
        }"""
    )
    assert colours["seen"] == colours["wanted"]


def test_what_is_unlike_the_training_scans_is_warned_of(open_page: Open) -> None:
    page = open_page("classification")
    told = page.evaluate(
        """async () => {
          const { foreign } = await import("./verdict.js");
          const slice = { ood_flag: true, ood_score: 0.97, ood_parts: { intensity: 0.9, view: 0.1 } };
          return [slice, { ood_share: 0.8 }, { ood_flag: false, ood_score: 0.2 }, { ood_flag: null, ood_score: null }]
            .map(answer => foreign(answer)?.textContent ?? null);
        }"""
    )
    assert "do not rely on this result" in told[0]
    assert "score 0.97; unusual: intensity." in told[0]
    assert "share of slices 0.80" in told[1]
    assert told[2:] == [None, None]


def test_both_tasks_with_times_and_the_recommendation(open_page: Open) -> None:
    page = open_page("multitask", query="threshold=0")  # so that the decoder runs
    panel = sampled(page, "multitask")
    assert "this is not a diagnosis" in panel.locator(".advice").inner_text()
    times = {name: float(row[0].split()[0]) for name, row in cells(panel, "Time by phase").items()}
    assert {"preprocessing", "network", "in all"} <= set(times)
    assert times["in all"] >= times["network"] > 0
    assert int(cells(panel, "Area by region")["WT, whole tumour"][0]) > 0


def test_a_batch_names_the_bad_file_and_keeps_the_others(open_page: Open) -> None:
    page = open_page("batch")
    panel = panel_of(page, "batch")
    good = [upload(f"slice {at}.png", slice_png(), "image/png") for at in range(11)]
    bad = upload("=bad.png", b"\x89PNG\r\n\x1a\nno", "image/png")
    panel.locator("input[type=file]").set_input_files([*good[:4], bad, *good[4:]])
    panel.get_by_text("12 files:").wait_for()
    assert "1 failed" in panel.get_by_role("status").inner_text()
    assert "=bad.png" in panel.locator(".warn").inner_text()
    assert panel.locator("tbody img").count() == 11
    panel.get_by_role("button", name="File").click()
    names = panel.locator("tbody th").all_inner_texts()
    assert names == ["=bad.png", *(f"slice {at}.png" for at in range(11))]  # by number: 2 before 10
    panel.get_by_role("button", name="Probability").click()
    assert panel.locator("tbody th").last.inner_text() == "=bad.png"  # no figure: last
    with page.expect_download() as told:
        panel.get_by_role("button", name="CSV").click()
    rows = list(csv.DictReader(io.StringIO(Path(told.value.path()).read_text(encoding="utf-8"), newline="")))
    assert len(rows) == 12
    broken = next(row for row in rows if row["error"])
    assert broken["name"] == "'=bad.png"  # no formula for a spreadsheet
    with page.expect_download() as told:
        panel.get_by_role("button", name="JSON").click()
    assert sum(row["probability"] is not None for row in json.loads(Path(told.value.path()).read_text())) == 11


def test_a_study_is_turned_through_and_downloaded(open_page: Open, tmp_path: Path) -> None:
    page = open_page("patient")
    panel = sampled(page, "patient")
    assert panel.locator(".views canvas").count() == 3
    axial, caption = panel.locator(".view canvas").first, panel.locator(".view label span").first
    before = caption.inner_text()
    axial.hover()
    page.mouse.wheel(0, -80)
    page.wait_for_function("text => document.querySelector('.view label span').textContent !== text", arg=before)
    panel.locator(".view input").first.press("Home")
    page.get_by_text("Axial, slice 1 of 48").wait_for()
    panel.locator(".picks svg").last.click(position={"x": 300, "y": 60})  # the profile leads to its slice
    page.wait_for_function("() => !document.querySelector('.view label span').textContent.includes('slice 1 of')")
    volumes = cells(panel, "Measured on the mask")
    assert float(volumes["WT, whole tumour"][0]) > 0
    saved = {}
    for name in ("NIfTI", "summary", "JSON"):
        with page.expect_download() as told:
            panel.get_by_role("button", name=name).click()
        saved[name] = tmp_path / told.value.suggested_filename
        told.value.save_as(saved[name])
    mask = np.asarray(nib.load(saved["NIfTI"]).dataobj)
    assert mask.shape == (128, 128, 48)
    # Labels nest and the regions of random weights do not: the innermost is told whole.
    enhancing = (mask == 4).sum() * 1.5 * 1.5 * 3 / 1000
    assert enhancing == pytest.approx(float(volumes["ET, enhancing tumour"][0]), abs=0.01)
    summary = saved["summary"].read_text()
    assert "not for diagnosis" in summary
    assert summary.count("data:image/png") == 3
    assert "<script" not in summary
    sheet = page.context.new_page()
    sheet.goto(saved["summary"].as_uri())
    assert sheet.pdf().count(b"/Type /Page\n") == 1  # printed, it is one page
    sheet.close()
    assert json.loads(saved["JSON"].read_text())["shape"] == [48, 128, 128]


def test_the_uncertainty_of_the_shown_slice(open_page: Open) -> None:
    page = open_page("patient", query="n_mc_samples=2")
    panel = sampled(page, "patient")
    canvas = panel.locator(".view canvas").first
    before = drawn(canvas)
    panel.get_by_role("button", name="Uncertainty of this slice").click()
    panel.get_by_text("nats").wait_for()
    page.wait_for_function(
        "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))"
    )
    assert (drawn(canvas) != before).any()


def test_a_studys_result_goes_with_the_page(open_page: Open, stack: StackState) -> None:
    page = open_page("patient")
    with page.expect_response(lambda answer: answer.url.endswith("/result")) as fetched:
        sampled(page, "patient", 1)
    job = fetched.value.url.removesuffix("/result")
    assert httpx.get(job).status_code == 200
    page.goto(f"{stack.gateway_url}/healthz")
    until = time.monotonic() + 30
    while httpx.get(job).status_code != 404:
        assert time.monotonic() < until
        time.sleep(0.1)


def test_a_dicom_study_gives_a_dicom_segmentation(open_page: Open, tmp_path: Path) -> None:
    from uploaded_study import make_upload

    page = open_page("patient")
    panel_of(page, "patient").locator("input[type=file]").set_input_files(make_upload(tmp_path).dicom)
    panel = done(page, "patient")
    with page.expect_download() as told:
        panel.get_by_role("button", name="DICOM-SEG").click()
    assert Path(told.value.path()).read_bytes()[128:132] == b"DICM"


def test_two_runs_stand_side_by_side_with_report_and_card(open_page: Open, runs_dir: Path) -> None:
    page = open_page("runs", query="run=first&beside=second")
    panel = panel_of(page, "runs")
    panel.get_by_role("article", name="second").wait_for()
    rows = cells(panel, "Figures on the test patients")
    figures = {
        name: json.loads((runs_dir / name / "metrics.json").read_text())["segmentation"]["WT"]["dice"]["value"]
        for name in ("first", "second")
    }
    assert rows["Dice WT"][0].startswith(f"{figures['first']:.3f} (")
    assert rows["Dice WT"][1].startswith(f"{figures['second']:.3f} (")
    assert float(rows["Dice WT"][2].replace("−", "-")) == pytest.approx(
        figures["second"] - figures["first"], abs=6e-4
    )
    second = panel.get_by_role("article", name="second")
    assert second.locator("figure", has_text="Reliability").locator("polyline").count() > 0
    second.locator("summary", has_text="Report").click()
    frame = second.frame_locator("iframe[title^=Report]")
    frame.locator("h1").first.wait_for()
    second.locator("summary", has_text="Model card").click()
    card = second.frame_locator("iframe[title^=Model]")
    assert card.locator("h1").inner_text() == "The card"
    assert card.locator("td").last.inner_text() == "<script>x</script>"  # text, not a script
    assert "run=first" in page.url
    assert "beside=second" in page.url


def test_settings_and_colours_live_in_the_address(open_page: Open) -> None:
    page = open_page("classification", query="threshold=0.9&modalities=t1&theme=dark")
    assert page.get_by_label("Threshold").input_value() == "0.9"
    assert page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "dark"
    panel = panel_of(page, "classification")
    panel.locator("input[type=file]").set_input_files(upload("slice.png", slice_png()))
    assert "threshold 90.0 %" in done(page, "classification").locator("svg.scale").get_attribute("aria-label")
    page.get_by_label("Pixel side").fill("0.8")
    page.get_by_label("Pixel side").press("Tab")
    assert "pixel_mm=0.8" in page.url
    page.get_by_label("Colours").select_option("light")
    page.reload()
    assert page.get_by_label("Pixel side").input_value() == "0.8"
    assert page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "light"


def test_tabs_work_by_keyboard(open_page: Open) -> None:
    page = open_page("classification")
    page.locator("#tab-classification").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#panel-segmentation").is_visible()
    page.keyboard.press("End")
    assert page.evaluate("document.activeElement.id") == "tab-runs"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('#panel-classification') !== null")


def test_a_phone_scrolls_in_one_direction(open_page: Open) -> None:
    page = open_page("patient", width=PHONE)
    sampled(page, "patient")
    for tab in ("patient", "segmentation", "batch", "runs"):
        page.locator(f"#tab-{tab}").click()
        assert page.evaluate("document.documentElement.scrollWidth") == PHONE
        assert page.get_by_text("not for diagnosis").first.is_visible()


def test_axe_finds_nothing_serious_in_light_and_dark(open_page: Open) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = open_page("runs", query="run=second")
    panel_of(page, "runs").locator("article").wait_for()
    found = []
    for tab in ("runs", "batch", "classification", "segmentation", "multitask", "patient"):
        page.locator(f"#tab-{tab}").click()
        if tab == "batch":
            files = [upload("a.png", slice_png()), upload("b.png", b"broken")]
            panel_of(page, tab).locator("input[type=file]").set_input_files(files)
            panel_of(page, tab).get_by_text("2 files:").wait_for()
        elif tab != "runs":
            sampled(page, tab)
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            violations = axe.run(page).response["violations"]
            found += [
                (tab, scheme, one["id"], [node["html"][:150] for node in one["nodes"][:3]])
                for one in violations
                if one["impact"] in ("serious", "critical")
            ]
    assert found == []


class Gateway:
    """A gateway of its own before the model server of the others, on one port, to be stopped and started."""

    def __init__(self, predictor: str) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        port = self.url.rpartition(":")[2]
        words = ["--predictor_host", predictor, "--http_port", port, "--grpc_port", str(free_port()), "--ui", "true"]
        self._command = [sys.executable, "-m", "serving.gateway", *words]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(60)


@pytest.fixture
def gateway(stack: StackState) -> Iterator[Gateway]:
    made = Gateway(stack.torchserve_url)
    made.start()
    until = time.monotonic() + 120
    while True:
        try:
            httpx.get(f"{made.url}/ui/")
            break
        except httpx.TransportError:
            assert time.monotonic() < until
            time.sleep(0.2)
    yield made
    made.stop()


def test_the_page_says_that_the_server_is_away_and_goes_on_when_it_is_back(open_page: Open, gateway: Gateway) -> None:
    page = open_page("classification", url=gateway.url)
    page.get_by_text("server and model answer").wait_for()
    panel = sampled(page, "classification")
    gateway.stop()
    page.get_by_text("The server does not answer. The page keeps asking").wait_for()
    assert panel.locator(".verdict").is_visible()  # what was there stays
    panel.locator("input[type=file]").set_input_files(upload("slice.png", slice_png()))
    again = panel.get_by_role("button", name="Try again")
    again.wait_for()
    gateway.start()
    page.get_by_text("server and model answer").wait_for()
    assert not page.locator("#down").is_visible()
    again.click()
    assert done(page, "classification").locator(".error").count() == 0
