"""Parameters and MACs, against numbers by hand."""

from __future__ import annotations

import itertools
import typing

import pytest

from slicewise.config import Architecture, ModelConfig
from slicewise.errors import InputError
from slicewise.model.summary import PartSummary, summary


def unet_macs(channels: int, base: int, height: int, width: int) -> dict[str, int]:
    """Written out: 9·C_in·C_out per pixel of a 3×3 convolution, 4·C_in·C_out per input pixel of an up-convolution."""
    widths = [base * 2**level for level in range(5)]
    pixels = [height * width // 4**level for level in range(5)]

    def block(level: int, before: int) -> int:
        return 9 * pixels[level] * (before + widths[level]) * widths[level]

    encoder = sum(block(level, before) for level, before in enumerate([channels, *widths[:-1]]))
    decoder = 3 * base * pixels[0] + sum(block(level, widths[level + 1]) for level in range(4))
    decoder += sum(4 * a * b * pixels[level + 1] for level, (b, a) in enumerate(itertools.pairwise(widths)))
    hidden = widths[-1] * 5 // 16
    return {"encoder": encoder, "decoder": decoder, "head": 2 * widths[-1] * hidden + hidden}


@pytest.mark.parametrize(("preset", "base"), [("small", 16), ("large", 64)])
@pytest.mark.parametrize("size", [(96, 96), (32, 64)])
def test_the_unets_figures_by_hand(preset: str, base: int, size: tuple[int, int]) -> None:
    found = summary(ModelConfig(preset=preset), 4, size)
    expected = unet_macs(4, base, *size)
    assert {name: found[name].macs for name in expected} == expected
    assert found["total"].macs == sum(expected.values())


def test_stated_figures() -> None:
    assert summary(ModelConfig(preset="large"), 4, (96, 96))["total"] == PartSummary(31_694_340, 6_780_682_560)
    assert summary(ModelConfig(), 4, (96, 96))["head"] == PartSummary(41_121, 41_040)


def test_depth_wise_convolutions_count_once_per_channel() -> None:
    """One MedNeXt block per level and repeat: 25·C, 2·C² and 2·C² per pixel."""
    widths, pixels = [16 * 2**level for level in range(5)], [1024 // 4**level for level in range(5)]
    levels = sum(2 * n * (25 * c + 4 * c * c) for c, n in zip(widths, pixels, strict=True))
    downs = sum(
        n * (25 * a + 2 * a * a + 2 * a * b + a * b)
        for (a, b), n in zip(itertools.pairwise(widths), pixels[1:], strict=True)
    )
    stem = 4 * 16 * 1024
    assert summary(ModelConfig(architecture="mednext"), 4, (32, 32))["encoder"].macs == stem + levels + downs


@pytest.mark.parametrize("architecture", typing.get_args(Architecture))
def test_parts_add_up_and_convolutions_grow_with_the_area(architecture: str) -> None:
    model = ModelConfig.model_validate({"architecture": architecture, "deep_supervision": True})
    small, large = summary(model, 4, (32, 64)), summary(model, 4, (64, 128))
    parts = [small[name] for name in ("encoder", "decoder", "head")]
    assert small["total"] == PartSummary(sum(p.parameters for p in parts), sum(p.macs for p in parts))
    # Not to the last one: MedNeXt's transposed convolutions leave out a row and a column.
    assert large["decoder"].macs == pytest.approx(4 * small["decoder"].macs, rel=0.06)
    assert large["head"] == small["head"]
    assert large["total"].parameters == small["total"].parameters


def test_a_size_that_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="multiples of 16"):
        summary(ModelConfig(), 4, (30, 32))
