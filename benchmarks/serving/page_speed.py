"""How fast the page is: first useful paint, a full-size study after its answer, scrolling a table of 100 files.

    python benchmarks/serving/page_speed.py BUNDLE --out benchmarks/results/serving/page_speed.json

BUNDLE is a bundle or a run. The study is a phantom of 240 × 240 × 155 voxels with four sequences, sent as NIfTI.
``idle`` are the frames of a page that does nothing: what the machine itself makes late.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from serving.local import start_detached, stop_stack
from serving.ui import samples
from slicewise.config import PhantomConfig, ServeConfig
from slicewise.files import write_json
from slicewise.inference.bundle import find_bundle
from slicewise.studies.phantom import write_phantom

FULL = PhantomConfig(n_studies=3, shape=(240, 240, 155), spacing_mm=(1.0, 1.0, 1.0), healthy_share=0.0)
N_FILES, FRAMES, REPEATS = 100, 240, 5
LONG_FRAME_MS = 50.0
PATIENCE_MS = 600_000

SCROLL = """async frames => {
  const box = document.querySelector(".rows"), times = [];
  const most = box.scrollHeight - box.clientHeight;
  let last = performance.now();
  for (let at = 0; at < frames; at++) {
    box.scrollTop = most * (at < frames / 2 ? at : frames - at) / (frames / 2);
    const now = await new Promise(requestAnimationFrame);
    times.push(now - last);
    last = now;
  }
  return { rows: box.querySelectorAll("tbody tr").length, pixels: most, times: times.slice(1) };
}"""
WALK = """async frames => {
  const slide = document.querySelector(".view input"), times = [];
  let last = performance.now();
  for (let at = 0; at < frames; at++) {
    slide.value = at % (Number(slide.max) + 1);
    slide.dispatchEvent(new Event("input"));
    const now = await new Promise(requestAnimationFrame);
    times.push(now - last);
    last = now;
  }
  return times.slice(1);
}"""
IDLE = """async frames => {
  const times = [];
  let last = performance.now();
  for (let at = 0; at < frames; at++) {
    const now = await new Promise(requestAnimationFrame);
    times.push(now - last);
    last = now;
  }
  return times.slice(1);
}"""
PAINT = """() => Object.fromEntries(
  performance.getEntriesByType("paint").map(one => [one.name, one.startTime]))"""


def first_paint(browser: Browser, url: str) -> dict[str, float]:
    """Milliseconds to the first paint with content, and until the page can be used and names the model."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(url)
    page.locator("#panel-classification .drop").wait_for()
    usable = page.evaluate("performance.now()")
    page.get_by_text("server and model answer").wait_for()
    model = page.evaluate("performance.now()")
    paint = page.evaluate(PAINT)["first-contentful-paint"]
    context.close()
    return {"first_contentful_paint_ms": paint, "usable_ms": usable, "model_named_ms": model}


def study(page: Page, url: str, files: list[Path]) -> dict[str, Any]:
    """From the job's answer to the three planes on the screen, and how the planes follow the slider."""
    page.goto(f"{url}?tab=patient")
    page.locator("#panel-patient input[type=file]").set_input_files(files)
    page.locator("#panel-patient .views").wait_for(timeout=PATIENCE_MS)
    page.wait_for_function("() => performance.getEntriesByName('viewable').length", timeout=PATIENCE_MS)
    marks = page.evaluate("['answer', 'viewable'].map(name => performance.getEntriesByName(name)[0].startTime)")
    result = {"answer_to_viewable_ms": marks[1] - marks[0], "voxels": list(FULL.shape), "sequences": len(files)}
    return result | {"walk": frames(page.evaluate(WALK, FRAMES))}


def table(page: Page, url: str, picture: bytes) -> dict[str, Any]:
    """A batch's table of 100 files, scrolled down and up."""
    page.goto(f"{url}?tab=batch")
    files = [{"name": f"{at:03}.png", "mimeType": "image/png", "buffer": picture} for at in range(N_FILES)]
    page.locator("#panel-batch input[type=file]").set_input_files(files)  # type: ignore[arg-type]
    page.get_by_text(f"{N_FILES} files:").wait_for(timeout=PATIENCE_MS)
    scrolled = page.evaluate(SCROLL, FRAMES)
    return {"rows": scrolled["rows"], "pixels": scrolled["pixels"], "scroll": frames(scrolled["times"])}


def frames(times: list[float]) -> dict[str, float]:
    """What the eye would notice of a row of frames."""
    ordered = sorted(times)
    return {
        "frames": len(times),
        "median_ms": statistics.median(times),
        "p95_ms": ordered[int(0.95 * len(ordered))],
        "longest_ms": ordered[-1],
        "over_50_ms": sum(one > LONG_FRAME_MS for one in times),
    }


def measure(url: str, browser: Browser, folder: Path) -> dict[str, Any]:
    """All of it."""
    paints = [first_paint(browser, url) for _ in range(REPEATS)]
    made = write_phantom(0, FULL, 1, folder)
    files = sorted(path for path in made.glob("*.nii.gz") if not path.name.endswith("_seg.nii.gz"))
    page = browser.new_page(viewport={"width": 1360, "height": 900})
    page.set_default_timeout(PATIENCE_MS)
    page.goto(url)
    return {
        "idle": frames(page.evaluate(IDLE, FRAMES)),
        "paint": {name: {"median": statistics.median(v), "worst": max(v)} for name, v in columns(paints).items()},
        "study": [study(page, url, files) for _ in range(2)],
        "table": table(page, url, samples.content(samples.listing()[0]["picture"])),
    }


def columns(rows: list[dict[str, float]]) -> dict[str, list[float]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/serving/page_speed.json"))
    parser.add_argument("--browser", default=os.environ.get("CHROMIUM", "/usr/bin/chromium"))
    given = parser.parse_args()
    config = ServeConfig(ui=True, gateway_port=0, gateway_grpc_port=0, torchserve_port=0)
    with tempfile.TemporaryDirectory() as name, sync_playwright() as player:
        folder = Path(name)
        state = start_detached(find_bundle(given.bundle), None, config, folder / "stack", os.getpid())
        browser = player.chromium.launch(executable_path=given.browser, args=["--no-sandbox"])
        try:
            result = measure(f"{state.gateway_url}/ui/", browser, folder)
        finally:
            browser.close()
            stop_stack(state)
    machine = {"cpus": os.cpu_count(), "load": os.getloadavg(), "browser": "Chromium, headless, no GPU"}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(given.out, {"machine": machine} | result)
    print(given.out.read_text())


if __name__ == "__main__":
    main()
