"""The pictures of the page in docs/: phantoms only, no patient's image may lie in the repository.

    python docs/images/take.py RUN          # a run of slicewise run; needs Chromium and the package playwright

Takes each tab, the Patient tab in dark and at a phone's width, as PNG files beside this script.
"""

from __future__ import annotations

import argparse
import io
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from serving.local import start_detached, stop_stack
from serving.ui.pictures import grey_png
from slicewise.config import PhantomConfig, ServeConfig
from slicewise.inference.bundle import find_bundle
from slicewise.studies.orientation import to_display
from slicewise.studies.phantom import make_phantom

HERE = Path(__file__).parent
WIDTH, HEIGHT, PHONE = 1280, 980, 375
MOST_BYTES = 300_000
N_FILES = 9
PATIENCE_MS = 120_000

Act = Callable[[Page], None]


def sample(tab: str, at: int = 0) -> Act:
    """Analyse a sample."""

    def act(page: Page) -> None:
        panel = page.locator(f"#panel-{tab}")
        page.wait_for_function("() => [...document.querySelectorAll('.sample img')].every(one => one.complete)")
        panel.locator(".sample").nth(at).click()
        panel.locator(".result:not([aria-busy]) .verdict").wait_for()

    return act


def batch(page: Page) -> None:
    """Slices of several phantoms, and a file that is none."""
    files = [{"name": f"phantom-{at}.png", "mimeType": "image/png", "buffer": picture(at)} for at in range(N_FILES)]
    files.insert(2, {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no picture"})
    page.locator("#panel-batch input[type=file]").set_input_files(files)  # type: ignore[arg-type]
    page.get_by_text(f"{len(files)} files:").wait_for()


def runs(page: Page) -> None:
    """The newest run."""
    page.locator("#panel-runs article").first.wait_for()


def picture(index: int) -> bytes:
    """The slice of a phantom with the most tumour, or the middle one."""
    phantom = make_phantom(index, PhantomConfig(), seed=3)
    areas = (to_display(phantom.label, phantom.affine) > 0).sum(axis=(1, 2))
    shown = int(areas.argmax()) if areas.any() else len(areas) // 2
    return grey_png(to_display(phantom.images["flair"], phantom.affine)[shown][np.newaxis])


def take(
    browser: Browser, url: str, name: str, act: Act, *, width: int = WIDTH, dark: bool = False, whole: bool = True
) -> None:
    """One picture of a tab, or of what its first screen shows; ``name`` begins with the tab's."""
    scheme = "dark" if dark else "light"
    page = browser.new_page(viewport={"width": width, "height": HEIGHT}, color_scheme=scheme)  # type: ignore[arg-type]
    page.set_default_timeout(PATIENCE_MS)
    page.goto(f"{url}/ui/?tab={name.partition('-')[0]}")
    page.get_by_text("server and model answer").wait_for()
    act(page)
    page.mouse.move(0, 0)
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    shot = Image.open(io.BytesIO(page.screenshot(full_page=whole))).convert("RGB")
    out = HERE / f"page-{name}.png"
    shot.save(out, optimize=True)
    if out.stat().st_size > MOST_BYTES:
        raise SystemExit(f"{out.name} has {out.stat().st_size} bytes: over {MOST_BYTES}")
    print(f"{out.name}: {shot.width}×{shot.height}, {out.stat().st_size >> 10} KB")
    page.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--browser", default=os.environ.get("CHROMIUM", "/usr/bin/chromium"))
    given = parser.parse_args()
    ports = {"gateway_port": 0, "gateway_grpc_port": 0, "torchserve_port": 0}
    config = ServeConfig(ui=True, ui_runs=str(given.run.resolve()), **ports)  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as name, sync_playwright() as player:
        state = start_detached(find_bundle(given.run), None, config, Path(name), os.getpid())
        browser = player.chromium.launch(executable_path=given.browser, args=["--no-sandbox"])
        try:
            for tab in ("classification", "segmentation", "multitask"):
                take(browser, state.gateway_url, tab, sample(tab))
            take(browser, state.gateway_url, "patient", sample("patient"), whole=False)
            take(browser, state.gateway_url, "batch", batch)
            take(browser, state.gateway_url, "runs", runs)
            take(browser, state.gateway_url, "patient-dark", sample("patient"), dark=True, whole=False)
            take(browser, state.gateway_url, "segmentation-phone", sample("segmentation"), width=PHONE)
        finally:
            browser.close()
            stop_stack(state)


if __name__ == "__main__":
    main()
