"""Encoder weights from a file."""

from __future__ import annotations

import typing
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from slicewise.config import Architecture, ModelConfig
from slicewise.errors import ConfigError
from slicewise.model.network import MultiTaskUNet, build_network

ARCHITECTURES = typing.get_args(Architecture)


def network_of(seed: int, channels: int = 4, *, transfer: bool = True, **model: object) -> MultiTaskUNet:
    torch.manual_seed(seed)
    return build_network(channels, ModelConfig.model_validate(model), transfer=transfer)


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.values(), two.values(), strict=True))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("whole", [True, False])
def test_the_encoder_comes_from_the_file_and_the_rest_from_the_seed(
    tmp_path: Path, architecture: str, whole: bool
) -> None:
    """From a weights file of all parts, and from one of the encoder's tensors alone."""
    source = network_of(1, architecture=architecture)
    save_file((source if whole else source.encoder).state_dict(), tmp_path / "e.safetensors")
    fresh = network_of(2, architecture=architecture)
    found = network_of(2, architecture=architecture, encoder_weights=tmp_path / "e.safetensors")
    assert same(found.encoder.state_dict(), source.encoder.state_dict())
    assert not same(found.encoder.state_dict(), fresh.encoder.state_dict())
    assert same(found.decoder.state_dict(), fresh.decoder.state_dict())
    assert same(found.head.state_dict(), fresh.head.state_dict())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_all_weights_survive_a_file(tmp_path: Path, architecture: str) -> None:
    from safetensors.torch import load_file

    source, other = (network_of(seed, architecture=architecture, deep_supervision=True).eval() for seed in (1, 2))
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    other.load_state_dict(load_file(tmp_path / "w.safetensors"))
    given = torch.randn(1, 4, 32, 32)
    assert torch.equal(source(given).regions, other(given).regions)
    assert torch.equal(source(given).tumour, other(given).tumour)


def test_who_loads_trained_weights_needs_no_file(tmp_path: Path) -> None:
    network_of(0, transfer=False, encoder_weights=tmp_path / "gone.safetensors")


def refused(path: Path, channels: int = 4, **model: object) -> str:
    with pytest.raises(ConfigError, match=r"model\.encoder_weights") as caught:
        network_of(0, channels, encoder_weights=path, **model)
    assert path.name in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("content", [None, b"", b"not tensors at all"])
def test_a_file_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "e.safetensors"
    if content is not None:
        path.write_bytes(content)
    assert "missing or damaged" in refused(path)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_another_number_of_modalities_is_named(tmp_path: Path, architecture: str) -> None:
    path = tmp_path / "e.safetensors"
    save_file(network_of(0, 1, architecture=architecture).state_dict(), path)
    assert "takes 1 input channel(s), this network 4" in refused(path, architecture=architecture)


def test_every_misfit_is_named(tmp_path: Path) -> None:
    path = tmp_path / "e.safetensors"
    tensors = network_of(0).encoder.state_dict()
    del tensors["blocks.1.layers.0.weight"]
    tensors["blocks.2.layers.1.bias"] = torch.zeros(3)
    tensors["blocks.9.layers.0.weight"] = torch.zeros(1)
    save_file(tensors, path)
    words = refused(path)
    assert "missing: blocks.1.layers.0.weight;" in words
    assert "unknown: blocks.9.layers.0.weight;" in words
    assert "of another shape: blocks.2.layers.1.bias [3] for [64]" in words


def test_another_preset_or_architecture_is_refused_and_the_list_kept_short(tmp_path: Path) -> None:
    path = tmp_path / "e.safetensors"
    save_file(network_of(0).state_dict(), path)
    assert "and 25 more" in refused(path, preset="medium")
    assert "missing: " in refused(path, architecture="mednext")


@pytest.mark.parametrize("partial", ["blocks.1.", "blocks.0., blocks.1", "encoder.blocks.1.layers"])
def test_what_a_file_leaves_out_on_purpose_keeps_its_random_start(tmp_path: Path, partial: str) -> None:
    path = tmp_path / "e.safetensors"
    source, fresh = network_of(1).encoder.state_dict(), network_of(2).encoder.state_dict()
    given = {name: tensor for name, tensor in source.items() if not name.startswith("blocks.1.")}
    save_file(given, path, metadata={"partial": partial})
    for name, tensor in network_of(2, encoder_weights=path).encoder.state_dict().items():
        assert torch.equal(tensor, given.get(name, fresh[name])), name


@pytest.mark.parametrize(
    "metadata", [None, {}, {"partial": ""}, {"partial": " ,encoder.,"}, {"partial": "blocks.2."}]
)
def test_what_else_is_missing_stays_an_error(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    path = tmp_path / "e.safetensors"
    tensors = network_of(0).encoder.state_dict()
    del tensors["blocks.1.layers.0.weight"], tensors["blocks.2.layers.0.weight"]
    save_file(tensors, path, metadata=metadata)
    assert "missing: blocks.1.layers.0.weight" in refused(path)


def test_a_partial_file_may_hold_nothing_unknown_and_no_other_shape(tmp_path: Path) -> None:
    path = tmp_path / "e.safetensors"
    tensors = network_of(0).encoder.state_dict()
    tensors |= {name: torch.zeros(1) for name in ("blocks.9.layers.0.weight", "blocks.1.layers.1.bias")}
    save_file(tensors, path, metadata={"partial": "blocks."})
    words = refused(path)
    assert "unknown: blocks.9.layers.0.weight" in words
    assert "of another shape: blocks.1.layers.1.bias" in words
