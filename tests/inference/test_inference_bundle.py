"""The bundle's files, and what batches do to answers."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from small_run import MODEL, SmallRun

from slicewise.config import REGIONS, SliceConfig
from slicewise.errors import BundleError, InputError
from slicewise.inference.bundle import BundleMeta, load_bundle, write_bundle
from slicewise.inference.calibration import Calibration, Calibrator, TemperatureMap, Threshold, sigmoid
from slicewise.inference.predictor import TASKS, Prediction, PredictOptions, Predictor, SliceInput
from slicewise.model.network import MultiTaskUNet
from slicewise.slices.crop import restore_map
from slicewise.slices.transform import prepare_slice

SIZE = 48


def by_temperature(temperature: float) -> Calibrator:
    return Calibrator(method="temperature", parameters=TemperatureMap(temperature=temperature))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of seeded random weights, calibrated in every part."""
    torch.manual_seed(5)
    calibration = Calibration(
        tumour=by_temperature(1.7),
        regions={name: by_temperature(t) for name, t in zip(REGIONS, (0.8, 1.3, 2.0), strict=True)},
        threshold=Threshold(value=0.45),
        region_threshold=0.4,
    )
    meta = BundleMeta(architecture=MODEL, preprocessing=SliceConfig(size=SIZE), calibration=calibration)
    folder = tmp_path_factory.mktemp("random") / "bundle"
    write_bundle(folder, MultiTaskUNet(4, MODEL).state_dict(), meta, {"model_card.md": "# Random\n"})
    return folder


@pytest.fixture(scope="module")
def predictor(bundle: Path) -> Predictor:
    return Predictor.load(bundle, "cpu", threads=1)


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle, tmp_path / "bundle"))


def a_head(seed: int, shape: tuple[int, int] = (70, 60), channels: int = 4) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    inside = ((rows / shape[0] - 0.5) / 0.4) ** 2 + ((columns / shape[1] - 0.5) / 0.42) ** 2 < 1
    return (rng.uniform(50, 900, (channels, *shape)) * inside).astype(np.float32)


def items() -> list[SliceInput]:
    """Slices of several sizes and modalities."""
    return [
        SliceInput(a_head(0), ("flair", "t1", "t1ce", "t2")),
        SliceInput(a_head(1, (50, 90), 1), ("t2",), (1.0, 0.7)),
        SliceInput(a_head(2, (128, 128), 2), ("t1ce", "flair")),
        SliceInput(a_head(3, (33, 41), 1), ("unknown",)),
    ]


def answers(outcomes: list[Prediction | InputError]) -> list[Prediction]:
    assert all(isinstance(outcome, Prediction) for outcome in outcomes)
    return [outcome for outcome in outcomes if isinstance(outcome, Prediction)]


def change_meta(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    meta = json.loads((folder / "bundle.json").read_text())
    change(meta)
    (folder / "bundle.json").write_text(json.dumps(meta))


def test_a_bundle_reads_back_the_same(bundle: Path) -> None:
    loaded = load_bundle(bundle)
    assert loaded.meta.calibration.tumour == by_temperature(1.7)
    assert sorted(loaded.meta.files) == ["model.safetensors", "model_card.md"]
    torch.manual_seed(5)
    expected = MultiTaskUNet(4, MODEL).state_dict()
    found = loaded.network().state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert not loaded.network().training


def test_only_listed_files_and_json_are_in_a_bundle(small_run: SmallRun) -> None:
    folder = small_run.bundle.folder
    assert {path.name for path in folder.iterdir()} == {*small_run.bundle.meta.files, "bundle.json"}
    assert small_run.bundle.meta.synthetic is True
    assert small_run.bundle.meta.data_digest == small_run.data.dataset.digest


def test_a_bundle_tells_what_the_gate_said(small_run: SmallRun) -> None:
    verdict = small_run.metrics["verdict"]
    assert small_run.bundle.meta.metrics["gate"] == {"passed": verdict["passed"], "reasons": verdict["reasons"]}


@settings(max_examples=150, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_a_changed_byte_of_bundle_json_is_refused_or_shows(bundle: Path, place: float, flip: int) -> None:
    """``bundle.json`` holds the others' digests, so its own shows as the bundle's digest; nothing else may fail."""
    before = load_bundle(bundle).digest
    path = bundle / "bundle.json"
    content = path.read_bytes()
    at = int(place * len(content))
    try:
        path.write_bytes(content[:at] + bytes([content[at] ^ flip]) + content[at + 1 :])
        try:
            assert load_bundle(bundle).digest != before
        except BundleError as error:
            assert error.cure  # noqa: PT017 - either outcome is right
    finally:
        path.write_bytes(content)


@pytest.mark.parametrize("name", ["../bundle.json", "/etc/passwd", "sub/file", "..", ".", ""])
def test_names_outside_the_bundle_are_refused(copy: Path, name: str) -> None:
    change_meta(copy, lambda meta: meta["files"].update({name: {"bytes": 1, "sha256": "0"}}))
    with pytest.raises(BundleError):
        load_bundle(copy)


@pytest.mark.parametrize("name", ["model.safetensors", "model_card.md", "bundle.json"])
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(BundleError, match=name):
        load_bundle(copy)


def test_weights_of_another_architecture_are_refused(copy: Path) -> None:
    change_meta(copy, lambda meta: meta["architecture"].update(preset="medium"))
    with pytest.raises(BundleError, match=r"does not fit bundle\.json"):
        Predictor.load(copy)


@pytest.mark.parametrize(
    "change",
    [
        lambda meta: meta["calibration"]["regions"].pop("TC"),
        lambda meta: meta.update(regions=["WT"]),
        lambda meta: meta.update(trained_regions=["WHOLE"]),
    ],
)
def test_regions_the_code_does_not_know_are_refused(copy: Path, change: Callable[[dict[str, Any]], object]) -> None:
    change_meta(copy, change)
    with pytest.raises(BundleError):
        load_bundle(copy)


def test_the_predictor_is_the_network_plus_calibration(bundle: Path, predictor: Predictor) -> None:
    """Spelled out with the library's parts: prepare, network, temperature, restore, head only, cut."""
    network = load_bundle(bundle).network()
    for item, found in zip(items(), answers(predictor.predict(items())), strict=True):
        prepared = prepare_slice(item.image, item.modalities, predictor.meta.preprocessing, item.pixel_mm)
        with torch.inference_mode():
            logits = network(torch.from_numpy(prepared.image[None]).float())
        assert found.tumor_probability == pytest.approx(float(torch.sigmoid(logits.tumour / 1.7)), abs=1e-5)
        assert found.tumor_label is bool(found.tumor_probability >= 0.45)
        for at, temperature in enumerate((0.8, 1.3, 2.0)):
            plane = sigmoid(logits.regions[0, at].numpy() / temperature)
            expected = restore_map(plane, prepared.geometry) * prepared.foreground
            np.testing.assert_allclose(found.region_probability[at], expected, atol=1e-4)
        np.testing.assert_array_equal(found.mask, found.region_probability >= 0.4)


def test_maps_have_the_callers_size(predictor: Predictor) -> None:
    for item, found in zip(items(), answers(predictor.predict(items(), PredictOptions(TASKS))), strict=True):
        frame = item.image.shape[1:]
        assert found.mask.shape == found.region_probability.shape == (3, *frame)
        assert found.gradcam.shape == found.uncertainty.shape == frame
        assert 0 <= found.gradcam.min() <= found.gradcam.max() <= 1
        assert 0 <= found.uncertainty.min() < found.uncertainty.max() <= np.log(2) + 1e-6


def test_only_what_is_asked_for(predictor: Predictor) -> None:
    (found,) = answers(predictor.predict(items()[:1], PredictOptions(("classify",))))
    assert (found.mask, found.region_probability, found.gradcam, found.uncertainty) == (None, None, None, None)
    assert found.decoded is False


def test_threshold_moves_the_label_and_not_the_probability(predictor: Predictor) -> None:
    low, high = (answers(predictor.predict(items(), PredictOptions(threshold=t))) for t in (0.0, 1.0))
    assert [a.tumor_probability for a in low] == [a.tumor_probability for a in high]
    assert all(a.tumor_label for a in low)
    assert not any(a.tumor_label for a in high)


def test_every_position_of_a_bad_item(predictor: Predictor) -> None:
    """Errors stay in their places; a batch of nothing but errors is no error."""
    bad = SliceInput(np.zeros((1, 5, 5), dtype=np.float32), ("t1",))
    alone = answers(predictor.predict(items()))
    for at in range(5):
        mixed = predictor.predict([*items()[:at], bad, *items()[at:]])
        assert isinstance(mixed.pop(at), InputError)
        for one, other in zip(alone, answers(mixed), strict=True):
            assert one.tumor_probability == pytest.approx(other.tumor_probability, abs=1e-5)
    assert [type(outcome) for outcome in predictor.predict([bad, bad])] == [InputError, InputError]
    assert predictor.predict([]) == []


def test_uncertainty_does_not_depend_on_batch_mates(predictor: Predictor) -> None:
    """The same slice always gets the same map, also behind dynamic batching."""
    options = PredictOptions(("uncertainty",), n_mc_samples=4)
    together = answers(predictor.predict(items(), options))
    for item, found in zip(items(), together, strict=True):
        (alone,) = answers(predictor.predict([item], options))
        np.testing.assert_allclose(found.uncertainty, alone.uncertainty, atol=1e-4)


def test_uncertainty_leaves_the_callers_random_state_alone(predictor: Predictor) -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    predictor.predict(items()[:1], PredictOptions(("uncertainty",)))
    assert torch.equal(torch.rand(3), expected)
    again = answers(predictor.predict(items()[:1]))[0]
    assert again.tumor_probability == answers(predictor.predict(items()[:1]))[0].tumor_probability


def test_warm_up_runs_every_path(bundle: Path) -> None:
    predictor = Predictor.load(bundle, "cpu")
    ran: list[str] = []
    for name in ("encoder", "decoder", "head"):
        getattr(predictor.network, name).register_forward_hook(lambda *_, name=name: ran.append(name))
    predictor.warm_up()
    assert ran.count("encoder") == 1
    assert {"decoder", "head"} <= set(ran)


WARM = """
import sys
from pathlib import Path
import numpy as np
import slicewise
from numba.core.dispatcher import Dispatcher
from slicewise.config import MODALITIES
from slicewise.inference.predictor import PredictOptions, Predictor, SliceInput

predictor = Predictor.load(Path(sys.argv[1]), "cpu", 1)
predictor.warm_up()
modules = [module for name, module in sys.modules.items() if name.startswith("slicewise.")]
loops = {id(loop): loop for module in modules for loop in vars(module).values() if isinstance(loop, Dispatcher)}
before = {key: list(loop.signatures) for key, loop in loops.items()}
rng = np.random.default_rng(9)
for kind in (np.uint8, np.int16, np.uint16, np.float32, np.float64):
    for size in (predictor.meta.preprocessing.size, 70, 200):
        for count in (1, 4):
            image = np.zeros((count, size, size), kind)
            inner = image[:, size // 4 : -size // 4, size // 5 : -size // 3]
            inner[...] = rng.uniform(9, 99, inner.shape)
            for writeable in (True, False):
                image.flags.writeable = writeable
                item = SliceInput(image, MODALITIES[:count])
                options = PredictOptions(("classify", "segment", "explain", "uncertainty"), n_mc_samples=1)
                predictor.predict([item, item], options)[0].tumor_probability
print([loop.py_func.__qualname__ for key, loop in loops.items() if list(loop.signatures) != before[key]])
print(len([loop for loop in loops.values() if loop.signatures]))
"""


def test_warming_up_leaves_nothing_to_compile(bundle: Path) -> None:
    """The first request after it compiles no loop, whatever its number type, size and channels are.

    In a process of its own: in this one other tests have compiled them.
    """
    done = subprocess.run([sys.executable, "-c", WARM, str(bundle)], capture_output=True, text=True, check=True)
    compiled_later, n_loops = done.stdout.splitlines()
    assert compiled_later == "[]"
    assert int(n_loops) > 5


def test_conditional_decoding_runs_the_decoder_for_the_chosen_only(bundle: Path) -> None:
    predictor = Predictor.load(bundle, "cpu")
    sizes: list[int] = []
    predictor.network.decoder.register_forward_hook(lambda _, __, output: sizes.append(len(output)))
    cut = float(np.median([a.tumor_probability for a in answers(predictor.predict(items()))]))
    found = answers(predictor.predict(items(), PredictOptions(threshold=cut, conditional=True)))
    assert sizes == [4, sum(answer.decoded for answer in found)]
    assert [answer.decoded for answer in found] == [answer.tumor_label for answer in found]
    predictor.predict(items(), PredictOptions(threshold=1.0, conditional=True))
    assert len(sizes) == 2
