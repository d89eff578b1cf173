"""Augmenting one batch in three ways: MONAI slice by slice, kornia's batches, and ours.

    python benchmarks/augment_speed.py > benchmarks/results/augment_speed.json

The three do the same kinds of change at the same shares and strengths, as far as each library has them (kornia has
no bias field for MR). kornia is needed for this benchmark alone: ``pip install kornia``. Interleaved in one run;
the batch is noise in an ellipse, as no change's cost depends on what the picture shows.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable
from importlib import metadata

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from monai import transforms as mt
from torch import Tensor

from slicewise.config import AugmentConfig
from slicewise.slices.augment import augment
from slicewise.slices.batches import Batch

ROUNDS = 25
SHAPES = {"smoke": (8, 96), "quick": (16, 128)}
PRESETS = ("minimal", "moderate", "aggressive")


def make_batch(n: int, size: int) -> Batch:
    axis = torch.linspace(-1, 1, size)
    head = (axis[:, None].square() + axis[None].square()) < 0.8
    image = torch.randn(n, 4, size, size, generator=torch.Generator().manual_seed(0)) * head
    regions = (head & (axis[:, None].square() + (axis[None] - 0.3).square() < 0.05)).float().expand(n, 3, -1, -1)
    ones = torch.ones(n)
    return Batch(image, regions.contiguous(), torch.ones(n, 3), ones, ones, torch.arange(n).numpy())


def with_monai(config: AugmentConfig) -> Callable[[Batch, int], Tensor]:
    """MONAI's dictionary transforms, one slice after the other."""
    both = ["image", "regions"]
    size = config.elastic
    steps: list[mt.Transform] = [
        mt.RandFlipd(both, prob=config.flip, spatial_axis=1),
        mt.RandAffined(
            both,
            prob=config.rotate_share,
            rotate_range=math.radians(config.rotate_degrees),
            scale_range=config.scale,
            mode=("bilinear", "nearest"),
            padding_mode="zeros",
        ),
        mt.RandScaleIntensityd("image", factors=config.contrast, prob=config.contrast_share),
        mt.RandShiftIntensityd("image", offsets=config.brightness, prob=config.brightness_share),
    ]
    if size:
        spacing, magnitude = (19, 19), (0.0, 100 * size)
        steps.append(
            mt.Rand2DElasticd(both, spacing, magnitude, prob=config.elastic_share, mode=("bilinear", "nearest"))
        )
    if config.gamma:
        limits = (1 / (1 + config.gamma), 1 + config.gamma)
        steps.append(mt.RandAdjustContrastd("image", prob=config.gamma_share, gamma=limits))
    if config.bias:
        steps.append(mt.RandBiasFieldd("image", prob=config.bias_share, coeff_range=(0.0, config.bias)))
    if config.blur:
        widths = (0.1, config.blur)
        steps.append(mt.RandGaussianSmoothd("image", widths, widths, prob=config.blur_share))
    steps.append(mt.RandGaussianNoised("image", prob=config.noise_share, std=config.noise))
    chain = mt.Compose(steps)

    def change(batch: Batch, seed: int) -> Tensor:
        chain.set_random_state(seed)
        done = [chain({"image": i, "regions": r}) for i, r in zip(batch.image, batch.regions, strict=True)]
        return torch.stack([item["image"].as_tensor() for item in done])

    return change


def with_kornia(config: AugmentConfig) -> Callable[[Batch, int], Tensor]:
    """Kornia's batched augmentations; they draw from torch's global generator."""
    from kornia import augmentation as ka

    scale = (1 - config.scale, 1 + config.scale)
    steps = [
        ka.RandomHorizontalFlip(p=config.flip),
        ka.RandomAffine(config.rotate_degrees, scale=scale, p=config.rotate_share),
        ka.RandomContrast((1 - config.contrast, 1 + config.contrast), clip_output=False, p=config.contrast_share),
        ka.RandomBrightness(
            (1 - config.brightness, 1 + config.brightness), clip_output=False, p=config.brightness_share
        ),
    ]
    if config.elastic:
        alpha = (config.elastic, config.elastic)
        steps.append(ka.RandomElasticTransform((63, 63), (16.0, 16.0), alpha, p=config.elastic_share))
    if config.gamma:
        steps.append(ka.RandomGamma((1 / (1 + config.gamma), 1 + config.gamma), p=config.gamma_share))
    if config.blur:
        taps = 2 * math.ceil(3 * config.blur) + 1
        steps.append(ka.RandomGaussianBlur((taps, taps), (0.1, config.blur), p=config.blur_share))
    steps.append(ka.RandomGaussianNoise(std=config.noise, p=config.noise_share))
    chain = ka.AugmentationSequential(*steps, data_keys=["input", "mask"])

    def change(batch: Batch, seed: int) -> Tensor:
        torch.manual_seed(seed)
        return chain(batch.image, batch.regions)[0]

    return change


def with_ours(config: AugmentConfig) -> Callable[[Batch, int], Tensor]:
    return lambda batch, seed: augment(batch, config, torch.Generator().manual_seed(seed)).image


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--date", default=time.strftime("%Y-%m-%d"))
    options = parser.parse_args()
    rows = []
    for name, (n, size) in SHAPES.items():
        batch = make_batch(n, size)
        for preset in PRESETS:
            config = AugmentConfig(preset=preset, modality_dropout=0.0)
            ways = {"monai": with_monai(config), "kornia": with_kornia(config), "ours": with_ours(config)}
            seconds: dict[str, list[float]] = {way: [] for way in ways}
            for number in range(ROUNDS):
                for way, change in ways.items():
                    start = time.perf_counter()
                    change(batch, number)
                    seconds[way].append(time.perf_counter() - start)
            medians = {way: round(1e3 * statistics.median(values[3:]), 2) for way, values in seconds.items()}
            over = {f"{way}_over_ours": round(medians[way] / medians["ours"], 1) for way in ("monai", "kornia")}
            rows.append({"mode": name, "batch": [n, 4, size, size], "preset": preset, "ms": medians, **over})
    versions = {name: metadata.version(name) for name in ("torch", "monai", "kornia")}
    machine = {"cores": os.cpu_count(), "threads": torch.get_num_threads(), **versions}
    json.dump({"date": options.date, "machine": machine, "rounds": ROUNDS, "rows": rows}, sys.stdout, indent=2)


if __name__ == "__main__":
    main()
