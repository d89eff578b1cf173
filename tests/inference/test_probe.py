"""The start-up probe: what is open is timed, what differs is not chosen, what is known is not timed again."""

from __future__ import annotations

import logging
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from small_run import SIZE, SmallRun

from slicewise.config import ModelConfig, PredictorSettings
from slicewise.inference.engines.base import PROBABILITY_TOLERANCE, Plan
from slicewise.inference.engines.choose import Site
from slicewise.inference.predictor import Predictor
from slicewise.inference.probe import Probe, choose_engine
from slicewise.inference.probe_timing import Timing, try_plan
from slicewise.model.network import build_network

QUICK = PredictorSettings(engine="torch", dtype="fp32", probe_seconds=0.1)


def make_site() -> Site:
    torch.manual_seed(0)
    network = build_network(4, ModelConfig(preset="tiny")).eval().requires_grad_(False)
    return Site(network, torch.device("cpu"), SIZE, torch.get_num_threads())


@pytest.fixture
def site() -> Site:
    return make_site()


def test_the_cheapest_is_chosen(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        _, probe = choose_engine(site, QUICK)
    assert [timing.name for timing in probe.timings] == ["torch-fp32", "torch-fp32-channels_last"]
    assert probe.chosen == min(probe.timings, key=lambda timing: timing.cost).name
    assert probe.reason == "measured"
    assert all(set(timing.ms_per_slice) == {1, 8} for timing in probe.timings)
    assert probe.timings[1].apart is not None
    assert probe.timings[1].apart <= PROBABILITY_TOLERANCE
    assert "ms a slice at batch 8" in caplog.text


def test_the_weights_are_laid_out_as_chosen(site: Site) -> None:
    """Candidates share the weights, whose layout the last one may have changed."""
    _, probe = choose_engine(site, QUICK)
    weight = max(site.network.parameters(), key=lambda parameter: parameter.numel())
    last = weight.is_contiguous(memory_format=torch.channels_last)
    assert last == probe.chosen.endswith("channels_last")


def test_other_answers_are_not_usable(site: Site) -> None:
    plain = try_plan(site, Plan(), QUICK, 0.05, None)
    assert plain.answer is not None
    assert plain.timing.usable
    other = try_plan(site, Plan(), QUICK, 0.05, plain.answer + 2 * PROBABILITY_TOLERANCE)
    assert not other.timing.usable
    assert not Timing(name="broken", error="it is").usable


def test_a_kept_result_is_taken(site: Site, tmp_path: Path) -> None:
    _, first = choose_engine(site, QUICK, tmp_path)
    (path,) = tmp_path.glob("*.json")
    other = next(timing.name for timing in first.timings if timing.name != first.chosen)
    path.write_text(first.model_copy(update={"chosen": other}).model_dump_json())
    _, second = choose_engine(site, QUICK, tmp_path)
    assert (second.chosen, second.reason, second.timings) == (other, "kept", first.timings)
    path.write_text("{")
    _, third = choose_engine(site, QUICK, tmp_path)
    assert third.reason == "measured"
    assert Probe.model_validate_json(path.read_text()) == third


def test_of_those_that_start_together_one_measures(tmp_path: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        probes = [probe for _, probe in pool.map(lambda _: choose_engine(make_site(), QUICK, tmp_path), range(3))]
    assert sorted(probe.reason for probe in probes) == ["kept", "kept", "measured"]
    assert len({probe.chosen for probe in probes}) == 1


def test_another_machine_s_result_is_not_taken(site: Site, tmp_path: Path) -> None:
    choose_engine(site, QUICK, tmp_path)
    choose_engine(Site(site.network, site.device, site.size + 16, site.threads), QUICK, tmp_path)
    assert len(list(tmp_path.glob("*.json"))) == 2


def test_the_predictor_keeps_the_probe(small_run: SmallRun) -> None:
    plain = Predictor(small_run.bundle, "cpu")
    assert (plain.probe.chosen, plain.probe.reason, plain.probe.timings) == ("torch-fp32", "only", ())
    found = Predictor.load(small_run.bundle.folder, "cpu", 1, QUICK)
    assert found.probe.reason == "measured"
    assert found.probe.threads == 1


def test_without_the_package_torch_runs(small_run: SmallRun) -> None:
    """In a process that cannot import it, as where it is not installed."""
    code = f"""
import logging, sys
sys.modules["openvino"] = None
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "openvino" else found(name, *rest)
logging.basicConfig(level=logging.WARNING)
from pathlib import Path
from slicewise.config import PredictorSettings
from slicewise.inference.predictor import Predictor
predictor = Predictor.load(Path({str(small_run.bundle.folder)!r}), "cpu", 1, PredictorSettings(engine="openvino"))
predictor.warm_up()
sys.stdout.write(predictor.probe.chosen)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.startswith("torch-fp32")
    assert found.stderr.count("OpenVINO is not installed") == 1
