"""Engines: the same answers as torch in float32, whatever is asked for and however many ask."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from small_run import SIZE, SmallRun

from slicewise.config import ModelConfig, PredictorSettings
from slicewise.cpus import available_cpus, cpu_quota, has_bf16, trains_in_bf16
from slicewise.errors import InputError
from slicewise.inference.engines.base import MASK_TOLERANCE, PROBABILITY_TOLERANCE, Plan
from slicewise.inference.engines.choose import Site, build_engine, plans
from slicewise.inference.engines.openvino_engine import is_installed
from slicewise.inference.predictor import TASKS, Prediction, PredictOptions, Predictor, SliceInput
from slicewise.model.network import build_network
from slicewise.studies.reading import read_study

CPU = torch.device("cpu")
SETTINGS = {
    "openvino": PredictorSettings(engine="openvino", dtype="fp32"),
    "channels_last": PredictorSettings(engine="torch", dtype="fp32", channels_last=True),
}
needs_openvino = pytest.mark.skipif(not is_installed(), reason="needs the extra 'fast': pip install slicewise[fast]")
ENGINES = [pytest.param("openvino", marks=needs_openvino), "channels_last"]


@pytest.fixture(scope="module")
def items(small_run: SmallRun) -> list[SliceInput]:
    """Slices of all studies of the small run."""
    dataset = small_run.data.dataset
    studies = [read_study(record, dataset.root) for record in dataset.records]
    return [
        SliceInput(study.image[:, z], study.modalities, study.spacing_mm[1:]) for study in studies for z in (6, 9)
    ]


@pytest.fixture(scope="module")
def plain(small_run: SmallRun) -> Predictor:
    return Predictor(small_run.bundle, "cpu")


@pytest.fixture(scope="module", params=ENGINES)
def fast(request: pytest.FixtureRequest, small_run: SmallRun) -> Predictor:
    return Predictor(small_run.bundle, "cpu", settings=SETTINGS[request.param])


def require_same(found: list[Prediction | InputError], expected: list[Prediction | InputError]) -> None:
    pixels = wrong = 0
    for one, other in zip(found, expected, strict=True):
        assert isinstance(one, Prediction)
        assert isinstance(other, Prediction)
        assert abs(one.tumor_probability - other.tumor_probability) <= PROBABILITY_TOLERANCE
        assert one.decoded == other.decoded
        assert one.region_probability is not None
        assert one.mask is not None
        assert np.abs(one.region_probability - other.region_probability).max() <= PROBABILITY_TOLERANCE
        pixels += one.mask.size
        wrong += int(np.count_nonzero(one.mask != other.mask))
    assert wrong <= MASK_TOLERANCE * pixels


def test_the_answers_are_torch_s(fast: Predictor, plain: Predictor, items: list[SliceInput]) -> None:
    for some in (items, items[:1]):
        require_same(fast.predict(some), plain.predict(some))
    masks = [answer.mask for answer in plain.predict(items) if isinstance(answer, Prediction)]
    assert sum(int(mask.any()) for mask in masks if mask is not None) > 3


def test_conditional_decoding(fast: Predictor, plain: Predictor, items: list[SliceInput]) -> None:
    said = [answer.tumor_probability for answer in plain.predict(items) if isinstance(answer, Prediction)]
    ordered = np.sort(said)
    at = len(ordered) // 2 + int(np.argmax(np.diff(ordered[len(ordered) // 2 :])))
    options = PredictOptions(threshold=float(ordered[at : at + 2].mean()), conditional=True)
    found = fast.predict(items, options)
    assert {answer.decoded for answer in found if isinstance(answer, Prediction)} == {True, False}
    require_same(found, plain.predict(items, options))


@pytest.mark.parametrize("method", ["gradcam", "hirescam"])
def test_maps_from_an_engine_s_features(
    fast: Predictor, plain: Predictor, items: list[SliceInput], method: str
) -> None:
    options = PredictOptions(TASKS, n_mc_samples=4, use_tta=True, explain_method=method)
    found, expected = fast.predict(items[:4], options), plain.predict(items[:4], options)
    require_same(found, expected)
    for one, other in zip(found, expected, strict=True):
        assert isinstance(one, Prediction)
        assert isinstance(other, Prediction)
        np.testing.assert_allclose(one.uncertainty, other.uncertainty, atol=1e-3)
        np.testing.assert_allclose(one.gradcam, other.gradcam, atol=1e-2)


def test_threads_do_not_share_buffers(fast: Predictor, plain: Predictor, items: list[SliceInput]) -> None:
    expected = plain.predict(items)
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda item: fast.predict([item])[0], items))
    require_same(found, expected)


@needs_openvino
@pytest.mark.parametrize(
    ("architecture", "preset"),
    [("mednext", "tiny"), ("efficientnet_lite", "small")],
)
def test_other_blocks_can_be_exported(architecture: str, preset: str) -> None:
    torch.manual_seed(0)
    config = ModelConfig.model_validate({"architecture": architecture, "preset": preset})
    site = Site(build_network(4, config).eval().requires_grad_(False), CPU, SIZE, 1)
    plain = PredictorSettings()
    engines = [build_engine(site, plan, plain) for plan in (Plan(), Plan("openvino"))]
    with torch.inference_mode():
        for count in (1, 3):
            image = torch.randn(count, 4, SIZE, SIZE)
            expected, found = (engine.regions(engine.features(image)).sigmoid() for engine in engines)
            assert float((expected - found).abs().max()) <= PROBABILITY_TOLERANCE


@needs_openvino
def test_nothing_is_reported(small_run: SmallRun, tmp_path: Path) -> None:
    """In a home of its own: OpenVINO's reporting keeps an identifier there."""
    code = f"""
import sys
from pathlib import Path
from slicewise.config import PredictorSettings
from slicewise.inference.predictor import Predictor
settings = PredictorSettings(engine="openvino", dtype="fp32")
predictor = Predictor.load(Path({str(small_run.bundle.folder)!r}), "cpu", 1, settings)
sys.stdout.write(predictor.probe.chosen)
"""
    home = os.environ | {"HOME": str(tmp_path)}
    found = subprocess.run([sys.executable, "-c", code], env=home, capture_output=True, text=True, check=True)
    assert found.stdout == "openvino-fp32"
    assert not (tmp_path / "intel").exists()


def test_bf16_stays_near() -> None:
    """On any CPU, though it is only fast on some: probabilities to two digits."""
    torch.manual_seed(0)
    site = Site(build_network(4, ModelConfig(preset="tiny")).eval().requires_grad_(False), CPU, SIZE, 1)
    engines = [build_engine(site, plan, PredictorSettings()) for plan in (Plan(), Plan(dtype="bf16"))]
    image = torch.randn(2, 4, SIZE, SIZE)
    with torch.inference_mode():
        expected, found = (engine.regions(engine.features(image)) for engine in engines)
    assert found.dtype == torch.float32
    assert 0 < float((expected.sigmoid() - found.sigmoid()).abs().max()) < 0.05


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"engine": "torch", "channels_last": False}, ["torch-fp32"]),
        ({"engine": "torch"}, ["torch-fp32", "torch-fp32-channels_last"]),
        ({"engine": "torch", "dtype": "bf16", "channels_last": True}, ["torch-bf16-channels_last"]),
        pytest.param({"engine": "openvino"}, ["openvino-fp32"], marks=needs_openvino),
        pytest.param({}, ["torch-fp32", "torch-fp32-channels_last", "openvino-fp32"], marks=needs_openvino),
    ],
)
def test_settings_leave_plans_open(settings: dict, expected: list[str]) -> None:
    found = plans(PredictorSettings.model_validate({"dtype": "fp32", **settings}), CPU)
    assert [plan.name for plan in found] == expected


def test_cuda_has_one_plan() -> None:
    assert [plan.name for plan in plans(PredictorSettings(), torch.device("cuda"))] == ["torch-fp32-channels_last"]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 0.5),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu.max": "nonsense"}, None),
        ({}, None),
    ],
)
def test_the_container_s_limit(tmp_path: Path, files: dict[str, str], expected: float | None) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert cpu_quota(tmp_path) == expected
    everything = available_cpus(tmp_path / "nothing")
    assert available_cpus(tmp_path) == (everything if expected is None else min(everything, int(np.ceil(expected))))


def test_bf16_is_told_by_the_cpu_s_flags(tmp_path: Path) -> None:
    (tmp_path / "new").write_text("processor : 0\nflags\t\t: fpu avx512f avx512_bf16 amx_tile\n")
    (tmp_path / "newer").write_text("processor : 0\nflags\t\t: fpu avx512_bf16 amx_bf16\n")
    (tmp_path / "old").write_text("processor : 0\nflags\t\t: fpu avx2\n")
    names = ("newer", "new", "old", "none")
    assert [has_bf16(tmp_path / name) for name in names] == [True, True, False, False]
    assert [trains_in_bf16(tmp_path / name) for name in names] == [True, True, False, False]
