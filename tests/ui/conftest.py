"""The page before a real gateway and a real TorchServe, in a real browser."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from serving.local import start_detached, stop_stack
from serving.state import StackState
from slicewise.config import ModelConfig, ServeConfig, SliceConfig
from slicewise.files import write_json
from slicewise.inference.bundle import CARD, BundleMeta, write_bundle
from slicewise.inference.calibration import Abstain, Calibration, Threshold

# The metrics of a made-up run lie with the tests of the report, the study to upload with those of the gateway.
sys.path += [str(Path(__file__).parents[1] / name) for name in ("evaluation", "serving")]

STARTED_S = 120
BAND = (0.3, 0.7)


@pytest.fixture(scope="session")
def bundle_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seeded random weights with a band of doubt."""
    import torch

    from slicewise.model.network import MultiTaskUNet

    torch.manual_seed(7)
    network = MultiTaskUNet(4, ModelConfig())
    calibration = Calibration(
        threshold=Threshold(value=0.5, rule="made up"),
        abstain=Abstain(alpha=0.1, low=BAND[0], high=BAND[1], reason="made up"),
    )
    meta = BundleMeta(
        architecture=ModelConfig(), preprocessing=SliceConfig(), calibration=calibration, model_version="3"
    )
    folder = tmp_path_factory.mktemp("bundle") / "bundle"
    write_bundle(folder, network.state_dict(), meta, {CARD: "# Random weights\n"})
    return folder


@pytest.fixture(scope="session")
def runs_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs with figures, one with a report and a card; a third folder is none; a link leads outside."""
    from metrics_v2 import make_metrics

    from slicewise.evaluation.report import write_report

    root = tmp_path_factory.mktemp("runs")
    for name, skill in (("first", 0.7), ("second", 0.85)):
        metrics = make_metrics(8, skill=skill)
        write_json(root / name / "metrics.json", metrics)
        write_json(root / name / "run.json", {"status": "done", "mode": "smoke", "seconds": 90.0})
    report = write_report(make_metrics(8, skill=0.85), root / "second")
    assert report == root / "second" / "report.html"
    (root / "second" / "model_card.md").write_text(
        "---\ntags: [hub]\n---\n# The card\n\n| a | b |\n|---|---|\n| 1 | <script>x</script> |\n"
    )
    (root / "nothing").mkdir()
    outside = tmp_path_factory.mktemp("outside")
    write_json(outside / "metrics.json", {"secret": True})
    (root / "linked").symlink_to(outside)
    (root / "first" / "report.html").symlink_to(outside / "metrics.json")
    return root


@pytest.fixture(scope="session")
def stack(bundle_dir: Path, runs_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackState]:
    """TorchServe and the gateway with the page."""
    config = ServeConfig(ui=True, ui_runs=str(runs_dir), gateway_port=0, gateway_grpc_port=0, torchserve_port=0)
    state = start_detached(bundle_dir, None, config, tmp_path_factory.mktemp("stack"), os.getpid(), STARTED_S)
    yield state
    stop_stack(state)


@pytest.fixture
def open_page(browser: Any, stack: StackState) -> Iterator[Callable[..., Any]]:
    """Open the page on a tab; at the end it must have asked its own server only, and met no error of its own."""
    contexts, problems = [], []

    def open_(tab: str, query: str = "", url: str = stack.gateway_url, width: int = 1280, **more: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": 900}, accept_downloads=True, **more)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text) if is_problem(message) else None)
        page.on("request", lambda asked: problems.append(asked.url) if is_foreign(asked.url, url) else None)
        page.goto(f"{url}/ui/?tab={tab}&{query}")
        return page

    yield open_
    for context in contexts:
        context.close()
    assert problems == []


def is_problem(message: Any) -> bool:
    """Errors, and what the page's policy blocked; an answer that is no success is the test's own business."""
    return message.type in ("error", "warning") and "Failed to load resource" not in message.text


def is_foreign(address: str, own: str) -> bool:
    """Whether a request goes elsewhere."""
    return not address.startswith((f"{own}/", "data:", "blob:"))
