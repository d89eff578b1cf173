"""The alerts and the dashboard of manifests/overlays/monitoring ask for metrics that a running stack exports."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families

from serving.ports import LOOPBACK
from serving.state import StackState

OVERLAY = Path(__file__).parents[2] / "manifests" / "overlays" / "monitoring"
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("_total",), "gauge": ("",)}

# Declared from the start; samples come with a bundle that scores, a bad item, a refusal.
RARE = {"slicewise_ood_score_bucket", "slicewise_ood_slices_total", "slicewise_bad_items_total"} | {
    "slicewise_rejected_total"
}


def asked() -> set[str]:
    """Our metrics' names in the rules and the dashboard; recorded ones have colons and are the rules' own."""
    text = (OVERLAY / "rules.yaml").read_text(encoding="utf-8") + (OVERLAY / "slicewise.json").read_text(
        encoding="utf-8"
    )
    return set(re.findall(r"(?<![:\w])slicewise_\w+", text))


def scraped(urls: tuple[str, ...]) -> tuple[set[str], set[str]]:
    """Names of the samples that the families declared there can have, and of those that are there."""
    declared, present = set(), set()
    for url in urls:
        for family in text_string_to_metric_families(httpx.get(url, timeout=10, trust_env=False).text):
            declared |= {family.name + suffix for suffix in SUFFIXES.get(family.type, ())}
            present |= {sample.name for sample in family.samples}
    return declared, present


def test_asked_metrics_are_exported(
    stack: StackState, metrics_port: int, head: NDArray[np.uint8], encoded: Callable[..., bytes]
) -> None:
    names = asked()
    assert len(names) > 10
    urls = (f"{stack.gateway_url}/metrics", f"http://{LOOPBACK}:{metrics_port}/metrics")
    picture = {"content-type": "image/png"}
    answer = httpx.post(f"{stack.gateway_url}/classify", content=encoded(head), headers=picture, timeout=60)
    assert answer.status_code == 200
    # TorchServe reads its workers' figures from their output, a moment after the answer.
    deadline = time.monotonic() + 20
    while True:
        declared, present = scraped(urls)
        if names - present <= RARE or time.monotonic() > deadline:
            break
        time.sleep(0.05)
    assert names - declared == set()
    assert names - present <= RARE
