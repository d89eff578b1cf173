"""What a bundle costs: every engine that is open, measured in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from small_run import SmallRun

from slicewise.config import PredictorSettings
from slicewise.inference.engines.choose import plans
from slicewise.model.device import choose_device


def profile(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "slicewise.cli", "profile", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"COLUMNS": "200"})


def test_every_engine_is_measured(small_run: SmallRun) -> None:
    found = profile(str(small_run.bundle.folder), "--batch", "2", "--seconds", "0.1", "--threads", "1", "--json")
    assert found.returncode == 0, found.stderr
    told = json.loads(found.stdout)
    expected = [plan.name for plan in plans(PredictorSettings(), choose_device())]
    assert [engine["engine"] for engine in told["engines"]] == expected
    assert (told["digest"], told["threads"]) == (small_run.bundle.digest, 1)
    for engine in told["engines"]:
        (cost,) = engine["costs"]
        assert cost["batch"] == 2
        assert 0 < cost["latency_ms"]["p50"] <= cost["latency_ms"]["p95"]
        assert cost["slices_per_second"] > 0
        assert engine["memory_mib"]["process"] > 50
        assert engine["error"] is None


def test_a_missing_bundle_is_named() -> None:
    missing = profile("nowhere")
    assert (missing.returncode, missing.stdout) == (1, "")
    assert "nowhere is not a bundle" in missing.stderr
