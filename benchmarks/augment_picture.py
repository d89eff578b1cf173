"""The picture in docs/augmentation.md: one phantom slice under each change at its ``aggressive`` strength.

python benchmarks/augment_picture.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch

from slicewise.config import AUGMENT_PRESETS, AugmentConfig, PhantomConfig
from slicewise.slices.augment import augment
from slicewise.slices.batches import Batch
from slicewise.studies.phantom import make_phantom

mpl.use("Agg")
from matplotlib import pyplot as plt

OUT = Path(__file__).parents[1] / "docs" / "images" / "augmentation.png"
CHANGES = ("flip", "rotate_degrees", "scale", "elastic", "brightness", "contrast", "gamma", "bias", "blur", "noise")
DRAWS = 40
CROP = slice(16, 144)


def make_batch(copies: int) -> Batch:
    """A T1ce and FLAIR slice with tumour, z-scored, several times over."""
    study = make_phantom(4, PhantomConfig(shape=(160, 160, 60), spacing_mm=(1.3, 1.3, 2.5)), seed=0)
    z = int(np.argmax((study.label == 4).sum(axis=(0, 1))))
    planes = []
    for name in ("t1ce", "flair"):
        plane = study.images[name][CROP, CROP, z].T.astype(np.float32)
        head = plane > 0
        planes.append(np.where(head, (plane - plane[head].mean()) / plane[head].std(), 0))
    image = torch.from_numpy(np.stack(planes)).expand(copies, -1, -1, -1).contiguous()
    whole = torch.from_numpy((study.label[CROP, CROP, z].T > 0).astype(np.float32))
    ones = torch.ones(copies)
    return Batch(image, whole.expand(copies, 1, -1, -1), torch.ones(copies, 1), ones, ones, np.arange(copies))


def only(change: str) -> AugmentConfig:
    """One change at its strongest preset, in every slice."""
    strong, share = AUGMENT_PRESETS["aggressive"], f"{change.removesuffix('_degrees')}_share"
    shares = {} if change == "flip" else {share: 1.0}
    return AugmentConfig(**{"preset": "none", change: 1.0 if change == "flip" else strong[change], **shares})


def strongest(before: Batch, change: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Of some draws, the slice that changed most: the middle of the range would hardly show."""
    after = augment(before, only(change), torch.Generator().manual_seed(7))
    index = int((after.image[:, 0] - before.image[:, 0]).abs().mean(dim=(1, 2)).argmax())
    return after.image[index, 0], after.regions[index, 0]


def main() -> None:
    before = make_batch(DRAWS)
    panels = [("phantom, T1ce", before.image[0, 0], before.regions[0, 0])]
    panels += [(change.removesuffix("_degrees"), *strongest(before, change)) for change in CHANGES]
    for preset in ("minimal", "moderate", "aggressive"):
        config = AugmentConfig(preset=preset, modality_dropout=0)
        for seed in (1, 2) if preset == "minimal" else (1, 2, 3)[: 2 if preset == "moderate" else 3]:
            after = augment(before, config, torch.Generator().manual_seed(seed))
            panels.append((f"{preset} {seed}", after.image[seed, 0], after.regions[seed, 0]))
    figure, axes = plt.subplots(3, 6, figsize=(12, 6.5), facecolor="black")
    for axis, (title, image, whole) in zip(axes.flat, panels, strict=True):
        axis.imshow(np.where(image != 0, image, -2.5), cmap="gray", vmin=-2.5, vmax=3.5)
        axis.contour(whole, [0.5], colors="lime", linewidths=0.7)
        axis.set_title(title, color="white", fontsize=9)
    for axis in axes.flat:
        axis.axis("off")
    figure.tight_layout(pad=0.4)
    figure.savefig(OUT, dpi=80, metadata={"Software": None})


if __name__ == "__main__":
    main()
