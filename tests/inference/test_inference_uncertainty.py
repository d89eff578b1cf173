"""Samples by dropout, mirroring and ensembles, and what they say."""

from __future__ import annotations

import itertools
import typing

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.stats import entropy
from torch import nn

from slicewise.config import REGIONS, Architecture, ModelConfig, SliceConfig
from slicewise.errors import BundleError, InputError
from slicewise.inference import sampling
from slicewise.inference.bundle import BundleMeta, write_bundle
from slicewise.inference.calibration import Calibration, Calibrator, PlattMap, TemperatureMap
from slicewise.inference.predictor import PredictOptions, Predictor, SliceInput
from slicewise.inference.sampling import Member, SamplingPlan, draw_samples
from slicewise.inference.thinned import ThinnedNetwork
from slicewise.inference.uncertainty import Uncertainty, binary_entropy
from slicewise.model.network import MultiTaskUNet

ALL = (0, 1, 2)


def network_of(dropout: float = 0.3, seed: int = 0, architecture: str = "unet") -> MultiTaskUNet:
    torch.manual_seed(seed)
    preset = "tiny" if architecture in ("unet", "mednext") else "small"
    config = {"preset": preset, "dropout": dropout, "architecture": architecture}
    return MultiTaskUNet(4, ModelConfig.model_validate(config)).eval()


def member(dropout: float = 0.3, seed: int = 0, calibration: Calibration | None = None) -> Member:
    return Member(network_of(dropout, seed), calibration or Calibration())


def image(n: int, side: int = 32, seed: int = 1) -> torch.Tensor:
    return torch.randn(n, 4, side, side, generator=torch.Generator().manual_seed(seed))


def equal_weights(n: int) -> np.ndarray:
    return np.full(n, 1 / n, dtype=np.float32)


# The measures.


@pytest.mark.parametrize(
    ("samples", "mean", "predictive", "expected"),
    [
        # Two samples that are sure and disagree: ln 2, all of it epistemic.
        ([0.0, 1.0], 0.5, 0.693147, 0.0),
        # Two that agree on a coin's toss: ln 2, all of it aleatoric.
        ([0.5, 0.5], 0.5, 0.693147, 0.693147),
        # 0.2 and 0.6: H(0.4) = 0.673012; (H(0.2) + H(0.6)) / 2 = (0.500402 + 0.673012) / 2.
        ([0.2, 0.6], 0.4, 0.673012, 0.586707),
        ([0.0, 0.0], 0.0, 0.0, 0.0),
        ([0.9], 0.9, 0.325083, 0.325083),
    ],
)
def test_measures_by_hand(samples: list[float], mean: float, predictive: float, expected: float) -> None:
    values = np.array(samples, dtype=np.float32)
    found = Uncertainty.of_samples(values, equal_weights(len(values)))
    assert float(found.mean) == pytest.approx(mean, abs=1e-6)
    assert float(found.predictive_entropy) == pytest.approx(predictive, abs=1e-6)
    assert float(found.expected_entropy) == pytest.approx(expected, abs=1e-6)
    assert float(found.mutual_information) == pytest.approx(predictive - expected, abs=1e-6)


@pytest.mark.parametrize("n", range(1, 30))
def test_sure_samples_have_no_uncertainty_whatever_their_number(n: int) -> None:
    """Their weights, added up in float32, may pass 1."""
    for value in (0.0, 1.0):
        found = Uncertainty.of_samples(np.full((n, 3), value, dtype=np.float32), equal_weights(n))
        for measure in (found.predictive_entropy, found.expected_entropy, found.mutual_information):
            np.testing.assert_allclose(measure, 0, atol=1e-5)


@given(arrays.arrays(np.float32, (3, 5), elements=st.floats(0, 1, width=32)))
def test_entropy_is_scipys_and_its_parts_add_up(samples: np.ndarray) -> None:
    found = Uncertainty.of_samples(samples, equal_weights(3))
    double = samples.astype(np.float64)
    np.testing.assert_allclose(binary_entropy(samples), entropy(np.stack([double, 1 - double])), atol=1e-5)
    whole = entropy(np.stack([double.mean(axis=0), 1 - double.mean(axis=0)]))
    np.testing.assert_allclose(found.predictive_entropy, whole, atol=1e-5)
    np.testing.assert_allclose(found.mutual_information + found.expected_entropy, whole, atol=1e-5)
    assert (found.mutual_information >= 0).all()
    assert (found.mutual_information <= np.log(2) + 1e-6).all()
    assert (found.expected_entropy >= 0).all()


# Dropout.


def test_dropout_samples_of_both_outputs_vary() -> None:
    samples = draw_samples([member()], image(3), SamplingPlan(8, regions=ALL))
    assert (samples.tumour_std > 0).all()
    assert samples.regions is not None
    assert (samples.regions.mutual_information.max(axis=(2, 3)) > 0).all()
    assert samples.tumour_samples.shape == (8, 3)
    assert samples.sources == ("dropout",)
    samples.require_variance()


@pytest.mark.parametrize(("dropout", "n_samples"), [(0.0, 8), (0.3, 1)])
def test_without_dropout_or_with_one_sample_nothing_varies_and_that_is_told(dropout: float, n_samples: int) -> None:
    samples = draw_samples([member(dropout)], image(2), SamplingPlan(n_samples, regions=ALL))
    assert samples.regions is not None
    assert samples.sources == ()
    assert not samples.tumour_std.any()
    assert not samples.tumour.mutual_information.any()
    assert not samples.regions.mutual_information.any()
    samples.require_variance()  # nothing was promised


@pytest.mark.parametrize("output", ["tumour", "WT", "ET"])
def test_samples_that_should_vary_and_do_not_are_refused(output: str) -> None:
    one = member()
    with torch.no_grad():  # an output that depends on nothing
        if output == "tumour":
            one.network.head.layers[3].weight.zero_()
        else:
            one.network.decoder.out.weight[REGIONS.index(output)] = 0
    samples = draw_samples([one], image(2), SamplingPlan(4, regions=ALL))
    assert samples.varied == tuple(name != output for name in ("tumour", *REGIONS))
    with pytest.raises(BundleError, match="dropout are all the same"):
        samples.require_variance()


def test_a_sure_network_is_not_one_that_never_varies() -> None:
    """Logits that differ beyond where probabilities round to 1."""
    one = member()
    with torch.no_grad():
        one.network.head.layers[3].bias.fill_(200.0)
        one.network.decoder.out.bias.fill_(200.0)
    samples = draw_samples([one], image(2), SamplingPlan(4, regions=ALL))
    assert (samples.tumour_samples == 1).all()
    assert not samples.tumour_std.any()
    assert not samples.tumour.predictive_entropy.any()
    samples.require_variance()


def test_without_dropout_a_sample_is_the_networks_own_answer() -> None:
    calibration = Calibration(tumour=Calibrator(method="platt", parameters=PlattMap(slope=0.7, intercept=-1.0)))
    calibration = calibration.model_copy(
        update={
            "regions": calibration.regions
            | {"TC": Calibrator(method="temperature", parameters=TemperatureMap(temperature=2.0))}
        }
    )
    one = member(0.0, calibration=calibration)
    samples = draw_samples([one], image(2), SamplingPlan(5, regions=ALL))
    with torch.inference_mode():
        logits = one.network(image(2))
    assert samples.regions is not None
    np.testing.assert_allclose(samples.tumour.mean, torch.sigmoid(0.7 * logits.tumour - 1), atol=1e-6)
    scale = torch.tensor([1.0, 2.0, 1.0])[:, None, None]
    np.testing.assert_allclose(samples.regions.mean, torch.sigmoid(logits.regions / scale), atol=1e-6)


@pytest.mark.parametrize("architecture", typing.get_args(Architecture))
def test_every_sample_is_the_network_with_one_set_of_masks(architecture: str) -> None:
    """Against the network run sample by sample, its dropouts followed by plain multiplications."""
    network = network_of(architecture=architecture)
    thinned = ThinnedNetwork(network, 3, seed=7)
    x = image(2)
    with torch.inference_mode():
        features = network.encoder(x)
        tumour = thinned.tumour(features[-1], range(3))
        regions = torch.cat(list(thinned.regions(features, [range(2), range(2, 3)])), dim=1)
        for item, row in itertools.product(range(2), range(3)):
            seeds = itertools.count(7)
            hooks = [
                part.register_forward_hook(masked(part, row, 3, next(seeds)))
                for part in network.modules()
                if isinstance(part, nn.Dropout | nn.Dropout2d) and part.p > 0
            ]
            alone = network.from_features([level[item : item + 1] for level in features])
            for hook in hooks:
                hook.remove()
            torch.testing.assert_close(tumour[item, row], alone.tumour[0])
            torch.testing.assert_close(regions[item, row], alone.regions[0], atol=2e-5, rtol=1e-4)


def masked(part: nn.Module, row: int, n: int, seed: int):  # type: ignore[no-untyped-def]
    def hook(_: nn.Module, __: object, output: torch.Tensor) -> torch.Tensor:
        shape = (n, output.shape[1], 1, 1) if isinstance(part, nn.Dropout2d) else (n, output.shape[1])
        kept = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) >= part.p
        return output * (kept / (1 - part.p))[row]

    return hook


def test_masks_drop_at_the_rate_and_keep_the_mean() -> None:
    thinned = ThinnedNetwork(network_of(0.25), 400, seed=0)
    bottleneck = thinned._network.dropout
    rows = torch.arange(400)
    bottleneck.rows = rows
    dropped = bottleneck(torch.ones(400, 128, 2, 2))
    assert dropped.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert (dropped == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.02)
    assert torch.equal(dropped[:, :, 0, 0], dropped[:, :, 1, 1])  # whole channels


def test_the_network_itself_stays_as_it_is() -> None:
    one = member()
    before = {name: tensor.clone() for name, tensor in one.network.state_dict().items()}
    with torch.inference_mode():
        first = one.network(image(2)).regions
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    draw_samples([one], image(2), SamplingPlan(3, mirror=True))
    assert torch.equal(torch.rand(2), expected)  # the caller's random state
    assert not any(part.training for part in one.network.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in one.network.state_dict().items())
    with torch.inference_mode():
        assert torch.equal(one.network(image(2)).regions, first)


# Mirroring.


def test_mirroring_changes_nothing_for_a_network_that_mirrors_along() -> None:
    one = member(0.0)
    with torch.no_grad():
        for part in one.network.modules():
            if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
                part.weight.copy_((part.weight + part.weight.flip(3)) / 2)
    plain, mirrored = (draw_samples([one], image(2), SamplingPlan(1, mirror=flag)) for flag in (False, True))
    np.testing.assert_allclose(plain.regions.mean, mirrored.regions.mean, atol=1e-5)
    np.testing.assert_allclose(plain.tumour.mean, mirrored.tumour.mean, atol=1e-5)
    assert mirrored.sources == ("mirror",)
    assert mirrored.regions.mutual_information.max() < 1e-6


def test_the_mirrored_map_is_put_back() -> None:
    one, x = member(0.0), image(2)
    found = draw_samples([one], x, SamplingPlan(1, mirror=True, regions=ALL))
    with torch.inference_mode():
        straight, mirrored = one.network(x), one.network(x.flip(3))
    expected = (straight.regions.sigmoid() + mirrored.regions.sigmoid().flip(3)) / 2
    np.testing.assert_allclose(found.regions.mean, expected, atol=1e-6)
    np.testing.assert_allclose(
        found.tumour.mean, (straight.tumour.sigmoid() + mirrored.tumour.sigmoid()) / 2, atol=1e-6
    )
    assert np.abs(straight.regions.sigmoid().numpy() - expected.numpy()).max() > 1e-3


def test_samples_are_shared_out_between_views_that_weigh_the_same() -> None:
    samples = draw_samples([member()], image(1), SamplingPlan(5, mirror=True))
    assert samples.weights.tolist() == pytest.approx([1 / 4] * 2 + [1 / 6] * 3)
    assert samples.sources == ("dropout", "mirror")
    # The mirrored view's samples are those of the mirrored slice under the same masks.
    x = image(2)
    mirrored = draw_samples([member()], x, SamplingPlan(4, mirror=True)).tumour_samples[2:]
    of_mirror_image = draw_samples([member()], x.flip(3), SamplingPlan(4)).tumour_samples[2:]
    np.testing.assert_allclose(mirrored, of_mirror_image, atol=1e-6)
    assert np.abs(mirrored - draw_samples([member()], x, SamplingPlan(4)).tumour_samples[2:]).min() > 1e-5


# Batches.


@pytest.mark.parametrize("chunk", [1, 3 * 32 * 32, 1000 * 32 * 32])
def test_batch_mates_and_chunks_change_nothing(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = SamplingPlan(4, mirror=True, regions=ALL)
    x = image(5)
    together = draw_samples([member()], x, plan)
    monkeypatch.setattr(sampling, "CHUNK_PIXELS", chunk)
    monkeypatch.setattr(sampling, "HEAD_VALUES", chunk)
    for at in range(5):
        alone = draw_samples([member()], x[at : at + 1], plan)
        np.testing.assert_allclose(alone.tumour_samples[:, 0], together.tumour_samples[:, at], atol=1e-6)
        for name in ("mean", "predictive_entropy", "expected_entropy", "mutual_information"):
            one, other = getattr(alone.regions, name)[0], getattr(together.regions, name)[at]
            np.testing.assert_allclose(one, other, atol=2e-6)


def test_the_same_plan_gives_the_same_samples_and_another_seed_others() -> None:
    first, again, other = (draw_samples([member()], image(2), SamplingPlan(4, seed=seed)) for seed in (0, 0, 1000))
    np.testing.assert_array_equal(first.tumour_samples, again.tumour_samples)
    np.testing.assert_array_equal(first.regions.mean, again.regions.mean)
    assert np.abs(first.tumour_samples - other.tumour_samples).min() > 0


def test_known_features_are_not_computed_again_and_the_decoder_runs_for_the_chosen_only() -> None:
    one = member()
    encoded: list[int] = []
    decoded: list[int] = []
    one.network.encoder.register_forward_hook(lambda *_: encoded.append(1))
    one.network.decoder.out.register_forward_hook(lambda _, __, output: decoded.append(len(output)))
    with torch.inference_mode():
        features = one.network.encoder(image(4))
    samples = draw_samples([one], image(4), SamplingPlan(3), features, decode=[3, 1])
    assert len(encoded) == 1
    assert sum(decoded) == 2 * 3
    whole = draw_samples([one], image(4), SamplingPlan(3))
    assert samples.tumour_samples.shape == (3, 4)
    np.testing.assert_allclose(samples.regions.mean, whole.regions.mean[[3, 1]], atol=2e-6)
    assert draw_samples([one], image(4), SamplingPlan(3), features, decode=[]).regions is None
    draw_samples([one], image(4), SamplingPlan(3, mirror=True), features)
    assert len(encoded) == 3  # one for the whole batch above, one for the mirrored view


# Ensembles.


def test_an_ensemble_is_the_mixture_of_its_members() -> None:
    members = [member(0.0, seed) for seed in range(3)]
    samples = draw_samples(members, image(2), SamplingPlan(3))
    alone = [draw_samples([one], image(2), SamplingPlan(1)) for one in members]
    assert samples.sources == ("ensemble",)
    np.testing.assert_allclose(samples.tumour.mean, np.mean([one.tumour.mean for one in alone], axis=0), atol=1e-6)
    np.testing.assert_allclose(samples.regions.mean, np.mean([one.regions.mean for one in alone], axis=0), atol=1e-6)
    assert (samples.regions.mutual_information > 0).any()
    samples.require_variance()


def test_each_member_is_calibrated_by_its_own() -> None:
    cold = Calibration(tumour=Calibrator(method="temperature", parameters=TemperatureMap(temperature=5.0)))
    one, other = member(0.0, 0), member(0.0, 1, cold)
    samples = draw_samples([one, other], image(2), SamplingPlan(2))
    with torch.inference_mode():
        expected = [one.network(image(2)).tumour.sigmoid(), (other.network(image(2)).tumour / 5).sigmoid()]
    np.testing.assert_allclose(samples.tumour_samples, torch.stack(expected), atol=1e-6)


def test_members_and_views_weigh_the_same_whatever_their_samples() -> None:
    samples = draw_samples([member(0.3), member(0.0, 1)], image(1), SamplingPlan(9, mirror=True))
    assert samples.weights.sum() == pytest.approx(1)
    # 9 samples in 4 parts: 2, 2, 2, 3, and one alone is enough where nothing is dropped.
    assert samples.weights.tolist() == pytest.approx([1 / 8] * 4 + [1 / 4] * 2)
    assert samples.sources == ("dropout", "mirror", "ensemble")


# In the Predictor.


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    folder = tmp_path_factory.mktemp("sampled") / "bundle"
    architecture = ModelConfig(preset="tiny", dropout=0.3)
    meta = BundleMeta(architecture=architecture, preprocessing=SliceConfig(size=32))
    return Predictor(write_bundle(folder, network_of().state_dict(), meta), "cpu")


def slices(n: int = 3) -> list[SliceInput]:
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:40, :44]
    inside = ((rows - 20) / 15) ** 2 + ((columns - 20) / 14) ** 2 < 1
    images = [(rng.uniform(50, 900, (2, 40, 44)) * inside).astype(np.float32) for _ in range(n)]
    return [SliceInput(values, ("flair", "t1")) for values in images]


@pytest.mark.parametrize("use_tta", [False, True])
def test_a_slices_maps_add_up_and_its_figures_are_their_means(predictor: Predictor, use_tta: bool) -> None:
    options = PredictOptions(("segment", "uncertainty"), n_mc_samples=6, use_tta=use_tta)
    for item, found in zip(slices(), predictor.predict(slices(), options), strict=True):
        head = item.image.any(axis=0)
        np.testing.assert_allclose(found.uncertainty, found.epistemic + found.aleatoric, atol=1e-6)
        assert found.epistemic.max() > 0
        assert not found.uncertainty[~head].any()
        scores = found.uncertainty_scores
        assert scores.sources == (("dropout", "mirror") if use_tta else ("dropout",))
        assert scores.head.pixels == np.count_nonzero(head)
        assert scores.head.predictive_entropy == pytest.approx(found.uncertainty[head].mean(), abs=1e-6)
        assert scores.head.mutual_information == pytest.approx(found.epistemic[head].mean(), abs=1e-6)
        assert scores.tumour.std > 0
        assert scores.tumour.predictive_entropy == pytest.approx(
            scores.tumour.mutual_information + scores.tumour.expected_entropy, abs=1e-6
        )
        assert scores.tumour.predictive_entropy == pytest.approx(
            float(entropy([scores.tumour.mean_probability, 1 - scores.tumour.mean_probability])), abs=1e-5
        )
        if scores.predicted is not None:
            assert 0 < scores.predicted.pixels <= scores.head.pixels


@pytest.mark.parametrize("use_tta", [False, True])
def test_a_slices_uncertainty_does_not_depend_on_its_mates(predictor: Predictor, use_tta: bool) -> None:
    options = PredictOptions(("uncertainty",), n_mc_samples=4, use_tta=use_tta)
    together = predictor.predict(slices(), options)
    for item, found in zip(slices(), together, strict=True):
        (alone,) = predictor.predict([item], options)
        np.testing.assert_allclose(alone.uncertainty, found.uncertainty, atol=1e-5)
        np.testing.assert_allclose(alone.epistemic, found.epistemic, atol=1e-5)
        assert alone.uncertainty_scores.tumour.std == pytest.approx(found.uncertainty_scores.tumour.std, abs=1e-6)


def test_a_slice_without_decoder_has_the_classifications_uncertainty_only(predictor: Predictor) -> None:
    options = PredictOptions(("segment", "uncertainty"), threshold=1.0, conditional=True)
    for found in predictor.predict(slices(), options):
        assert found.uncertainty_scores.head is None
        assert found.uncertainty_scores.predicted is None
        assert found.uncertainty_scores.tumour.std > 0
        assert not found.uncertainty.any()
        assert not found.epistemic.any()


def test_a_whole_tumour_that_was_never_taught_has_no_uncertainty(tmp_path: object) -> None:
    meta = BundleMeta(
        architecture=ModelConfig(preset="tiny", dropout=0.3),
        preprocessing=SliceConfig(size=32),
        trained_regions=(),
    )
    untaught = Predictor(write_bundle(tmp_path / "b", network_of().state_dict(), meta), "cpu")  # type: ignore[operator]
    (found,) = untaught.predict(slices(1), PredictOptions(("uncertainty",)))
    assert found.uncertainty_scores.head is None
    assert not found.uncertainty.any()


def test_uncertainty_needs_one_more_encoder_pass_for_the_mirror_image(predictor: Predictor) -> None:
    ran: list[int] = []
    hook = predictor.network.encoder.register_forward_hook(lambda *_: ran.append(1))
    predictor.predict(slices(), PredictOptions(("segment", "explain", "uncertainty"), n_mc_samples=20))
    assert len(ran) == 1
    predictor.predict(slices(), PredictOptions(("segment", "explain", "uncertainty"), n_mc_samples=20, use_tta=True))
    assert len(ran) == 3
    hook.remove()


def test_an_unknown_method_of_explanation_is_refused() -> None:
    with pytest.raises(InputError, match="explain_method"):
        PredictOptions(explain_method="guess")  # type: ignore[arg-type]
