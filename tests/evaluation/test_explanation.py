"""Overlap of explanations with the mask, and the check by random weights."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.stats import spearmanr

from slicewise.config import EvaluateConfig, ModelConfig
from slicewise.errors import InputError
from slicewise.evaluation.explanation import explanation_of_slice, explanation_section
from slicewise.evaluation.explanation_sanity import MAX_SIMILARITY, SHARES, sanity_check
from slicewise.inference.explain import explain
from slicewise.model.network import MultiTaskUNet, build_network

CONFIG = EvaluateConfig(bootstrap=100)
HEAD = np.ones((4, 4), dtype=bool)
CORNER = np.zeros((4, 4), dtype=bool)
CORNER[:2, :2] = True


def plane(**values: float) -> np.ndarray:
    """A map that is 0 but for single pixels: ``r0c1=0.5``."""
    found = np.zeros((4, 4), dtype=np.float32)
    for name, value in values.items():
        found[int(name[1]), int(name[3])] = value
    return found


@pytest.mark.parametrize(
    ("explanation", "pointing", "energy"),
    [
        (plane(r0c0=1.0), True, 1.0),
        (plane(r3c3=1.0), False, 0.0),
        (plane(r0c0=0.6, r3c3=1.0), False, 0.6 / 1.6),
        (plane(r0c0=1.0, r3c3=0.5, r0c3=0.5), True, 0.5),
        # Two equal maxima, one inside: not most of them.
        (plane(r0c0=1.0, r3c3=1.0), False, 0.5),
        # A map that says the same everywhere knows nothing: 4 of 16 pixels.
        (np.ones((4, 4)), False, 0.25),
    ],
)
def test_overlap_by_hand(explanation: np.ndarray, pointing: bool, energy: float) -> None:
    found = explanation_of_slice(explanation, CORNER, HEAD)
    assert found["pointing"] is pointing
    assert found["energy_inside"] == pytest.approx(energy)
    assert found["chance"] == 0.25
    assert found["energy_gain"] == pytest.approx(energy / 0.25)
    assert found["empty"] is False


def test_only_the_head_counts() -> None:
    head = HEAD.copy()
    head[3] = False
    found = explanation_of_slice(plane(r0c0=0.5, r3c3=1.0), CORNER, head)
    assert (found["pointing"], found["energy_inside"]) == (True, 1.0)
    assert found["chance"] == pytest.approx(4 / 12)


@given(
    arrays.arrays(np.float64, (5, 5), elements=st.floats(0, 1, width=32)),
    arrays.arrays(np.bool_, (5, 5)),
    st.floats(0.5, 8),
)
def test_scaling_a_map_changes_nothing_and_the_rest_is_outside(
    explanation: np.ndarray, mask: np.ndarray, factor: float
) -> None:
    head = np.ones((5, 5), dtype=bool)
    found, scaled = (explanation_of_slice(values, mask, head) for values in (explanation, explanation * factor))
    if found["energy_inside"] is None:
        assert scaled["energy_inside"] is None
        assert not mask.any() or not explanation.any()
        return
    assert found["energy_inside"] == pytest.approx(scaled["energy_inside"])
    assert 0 <= found["energy_inside"] <= 1 + 1e-12
    if not mask.all():
        outside = explanation_of_slice(explanation, ~mask, head)
        assert found["energy_inside"] + outside["energy_inside"] == pytest.approx(1)


def test_undefined_cases_are_none() -> None:
    no_tumour = explanation_of_slice(plane(r0c0=1.0), ~HEAD, HEAD)
    assert no_tumour == {
        "pointing": None, "energy_inside": None, "chance": None, "energy_gain": None, "empty": False
    }  # fmt: skip
    no_head = explanation_of_slice(plane(r0c0=1.0), CORNER, ~HEAD)
    assert no_head["chance"] is None
    empty = explanation_of_slice(plane(), CORNER, HEAD)
    assert empty == {
        "pointing": None, "energy_inside": None, "chance": 0.25, "energy_gain": None, "empty": True
    }  # fmt: skip


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.5])
def test_what_is_no_evidence_is_refused(value: float) -> None:
    with pytest.raises(InputError, match="explanation"):
        explanation_of_slice(plane(r0c0=value), CORNER, HEAD)
    with pytest.raises(InputError, match="shapes"):
        explanation_of_slice(np.ones((4, 5)), CORNER, HEAD)


def test_the_section_averages_slices_then_patients() -> None:
    maps = [plane(r0c0=1.0), plane(r3c3=1.0), plane(r0c0=1.0), plane(), plane(r0c0=1.0)]
    masks = [CORNER, CORNER, CORNER, CORNER, ~HEAD]
    records = [explanation_of_slice(values, mask, HEAD) for values, mask in zip(maps, masks, strict=True)]
    section = explanation_section(records, ["a", "a", "b", "b", "c"], CONFIG)
    assert (section["n_slices"], section["n_with_tumour"], section["n_empty_map"]) == (5, 4, 1)
    # a: one of two; b: one of one, as an empty map points nowhere.
    assert section["pointing"]["value"] == pytest.approx(0.75)
    assert section["energy_inside"]["value"] == pytest.approx(0.75)
    assert section["chance"]["value"] == pytest.approx(0.25)
    assert section["energy_gain"]["value"] == pytest.approx(3.0)
    assert section["pointing"]["n"] == 2
    json.dumps(section, allow_nan=False)


def test_a_section_of_nothing() -> None:
    section = explanation_section([], [], CONFIG)
    assert section["pointing"]["value"] is None
    json.dumps(section, allow_nan=False)


# Random weights.


def toy_slices(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Discs of noise; every second one has a bright blob somewhere, which is the tumour."""
    generator = torch.Generator().manual_seed(seed)
    grid = torch.stack(torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij"))
    head = ((grid - 31.5) ** 2).sum(dim=0) < 30**2
    image = torch.randn(n, 1, 64, 64, generator=generator) * 0.5
    centres = torch.rand(n, 2, generator=generator) * 30 + 17
    for at in range(0, n, 2):
        image[at, 0] += 5.0 * (((grid - centres[at, :, None, None]) ** 2).sum(dim=0) < 25)
    return image * head, (torch.arange(n) % 2 == 0).float()


@pytest.fixture(scope="module")
def trained() -> MultiTaskUNet:
    """A network that has learnt to find the blob."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    network = MultiTaskUNet(1, ModelConfig(preset="tiny", dropout=0.0)).train()
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    for step in range(25):
        image, label = toy_slices(8, step)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(network(image, segment=False).tumour, label)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    image, label = toy_slices(20, 99)
    with torch.inference_mode():
        found = (network.eval()(image, segment=False).tumour > 0) == (label > 0)
    assert found.float().mean() > 0.9
    return network


@pytest.mark.parametrize("method", ["gradcam", "hirescam", "integrated_gradients"])
def test_random_weights_change_the_map(trained: MultiTaskUNet, method: str) -> None:
    image = toy_slices(24, 7)[0][::2]
    before = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
    found = sanity_check(trained, image, method)  # type: ignore[arg-type]
    assert found["changed"] is True
    assert [step["randomised"] for step in found["cascade"]][:2] == ["head", "head and 25 % of the encoder"]
    assert len(found["cascade"]) == len(SHARES)
    assert found["cascade"][-1]["similarity"] < MAX_SIMILARITY
    assert all(torch.equal(tensor, before[name]) for name, tensor in trained.state_dict().items())
    json.dumps(found, allow_nan=False)


def test_the_checks_similarity_is_the_absolute_rank_correlation(trained: MultiTaskUNet) -> None:
    """The last step of the cascade, with the fresh network made here."""
    image = toy_slices(6, 7)[0][::2]
    found = sanity_check(trained, image, "gradcam", seeds=(5,))
    fresh = MultiTaskUNet(1, ModelConfig(preset="tiny", dropout=0.0)).eval()
    layers = [fresh.head.layers[0], fresh.head.layers[3]]
    for block in fresh.encoder.blocks:
        layers += [part for part in block.layers if list(part.parameters())]
    torch.manual_seed(5)
    for layer in layers:
        layer.reset_parameters()
    maps = []
    for network in (trained, fresh):
        with torch.inference_mode():
            features = network.encoder(image)
        maps.append(explain(network, image, features))
    head = (image != 0).any(dim=1).numpy()
    pairs = [(a[h], b[h]) for a, b, h in zip(*maps, head, strict=True)]
    expected = [abs(spearmanr(a, b).statistic) for a, b in pairs if a.any() and b.any()]
    assert found["cascade"][-1]["similarity"] == pytest.approx(np.mean(expected), abs=1e-6)
    assert found["cascade"][-1]["n_undefined"] == len(pairs) - len(expected)
    assert found == sanity_check(trained, image, "gradcam", seeds=(5,))


def test_a_map_that_ignores_the_weights_fails_the_check(
    trained: MultiTaskUNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the check is for: an "explanation" that only shows the image."""

    def brightness(_: Any, image: torch.Tensor, *__: Any) -> np.ndarray:
        return image[:, 0].abs().numpy()

    monkeypatch.setattr("slicewise.evaluation.explanation_sanity.explain", brightness)
    found = sanity_check(trained, toy_slices(4, 7)[0])
    assert found["changed"] is False
    assert found["cascade"][-1]["similarity"] == pytest.approx(1.0)


def test_empty_maps_are_undefined_and_no_proof(trained: MultiTaskUNet) -> None:
    found = sanity_check(trained, torch.zeros(2, 1, 64, 64), seeds=(0,))
    assert found["changed"] is False
    assert found["cascade"][0] == {"randomised": "head", "similarity": None, "n_undefined": 2}
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("architecture", ["efficientnet", "efficientnet_lite", "mednext"])
def test_every_architecture_can_be_randomised(architecture: str) -> None:
    preset = "tiny" if architecture == "mednext" else "small"
    network = build_network(1, ModelConfig.model_validate({"architecture": architecture, "preset": preset})).eval()
    found = sanity_check(network, toy_slices(2, 7)[0], seeds=(0,))
    assert found["cascade"][-1]["similarity"] is None or 0 <= found["cascade"][-1]["similarity"] < 0.99
