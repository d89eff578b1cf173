"""Random changes of a training batch, vectorised over the batch on the batch's device.

Each kind of change draws from its own stream, so that switching one off leaves the others as they were; and no
draw depends on the pixels, so that what happens to a slice does not depend on which others share its batch.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from slicewise.config import AugmentConfig
from slicewise.slices.augment.draw import spawn
from slicewise.slices.augment.intensity import Planes, change_gamma, change_levels, multiply_bias, smooth, sprinkle
from slicewise.slices.augment.modality import drop_modalities
from slicewise.slices.augment.spatial import move
from slicewise.slices.batches import Batch

__all__ = ["augment", "drop_modalities"]

INTENSITY = (change_levels, change_gamma, multiply_bias, smooth, sprinkle)


def augment(batch: Batch, config: AugmentConfig, generator: torch.Generator) -> Batch:
    """Move the slices, change their intensities, and withhold modalities.

    The background stays exactly 0, a missing modality stays missing, and with every strength at 0 the batch
    comes back bit for bit.

    Args:
        batch: A training batch; not changed.
        config: Shares and strengths.
        generator: Source of all randomness, on the CPU.
    """
    places, dropout, *streams = spawn(generator, 2 + len(INTENSITY))
    image, regions = move(batch.image, batch.regions, config, places)
    planes = Planes.of(image)
    for change, stream in zip(INTENSITY, streams, strict=True):
        change(planes, config, stream)
    image = drop_modalities(planes.values.view_as(image), config.modality_dropout, dropout)
    return replace(batch, image=image, regions=regions)
