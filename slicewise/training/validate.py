"""What a stage watches on the validation split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from slicewise.config import REGIONS, TrainConfig
from slicewise.model.device import place_image
from slicewise.model.losses import DEFAULT_LOSSES, Losses
from slicewise.model.network import MultiTaskUNet
from slicewise.slices.batches import Batch, SliceData
from slicewise.training.ranks import Ranks

ALONE = Ranks()


@dataclass(frozen=True)
class Inferred:
    """Network outputs of one batch, on the CPU.

    Attributes:
        batch: The batch.
        tumour: ``[N]`` logits.
        regions: ``[N, 3, H, W]`` logits, or None when not asked for.
        features: The encoder's, finest first, on the network's device; None when not asked for.
    """

    batch: Batch
    tumour: torch.Tensor
    regions: torch.Tensor | None
    features: list[torch.Tensor] | None = None


def infer(
    network: MultiTaskUNet,
    data: SliceData,
    batch_size: int,
    *,
    segment: bool = True,
    rows: Sequence[int] | None = None,
    keep_features: bool = False,
) -> Iterator[Inferred]:
    """Run the network in evaluation mode over the slices ``rows`` of ``data``, by default over all, in order."""
    device = next(network.parameters()).device
    network.eval()
    for batch in data.batches(range(len(data)) if rows is None else rows, batch_size):
        with torch.inference_mode():
            features = network.encoder(place_image(batch.image, device))
            logits = network.from_features(features, segment=segment)
        regions = None if logits.regions is None else logits.regions.float().cpu()
        yield Inferred(batch, logits.tumour.float().cpu(), regions, features if keep_features else None)


def validate_stage(
    network: MultiTaskUNet,
    data: SliceData,
    train: TrainConfig,
    tasks: tuple[str, ...],
    loss_of: Losses = DEFAULT_LOSSES,
    ranks: Ranks = ALONE,
) -> dict[str, float | None]:
    """Loss, mean Dice over patients and regions, and ROC-AUC over slices; None where undefined.

    Args:
        network: The network.
        data: The validation slices.
        train: The section ``train``: the batches' size and the losses' weights.
        tasks: Which losses and figures take part.
        loss_of: The two losses, as in training.
        ranks: The processes; each judges a part of the slices, and all get the same figures.
    """
    counts = np.zeros((len(data.keys), len(REGIONS), 3))
    losses, scores = np.zeros(2), np.zeros((2, len(data)))
    n = len(data)
    rows = range(n * ranks.rank // ranks.world, n * (ranks.rank + 1) // ranks.world)
    at = rows.start
    for out in infer(network, data, train.batch_size, segment="segment" in tasks, rows=rows):
        batch = out.batch
        loss = torch.zeros(())
        if out.regions is not None:
            loss = loss + train.lambda_seg * loss_of.segmentation(out.regions, batch.regions, batch.known)
            np.add.at(counts, batch.study, overlap(out.regions > 0, batch.regions > 0))
        if "classify" in tasks:
            loss = loss + train.lambda_cls * loss_of.classification(out.tumour, batch.tumour, batch.tumour_known)
        losses += np.array([float(loss), 1.0]) * len(batch.image)
        here = slice(at, at + len(batch.image))
        scores[:, here] = out.tumour.numpy(), batch.tumour.numpy()
        at = here.stop
    total, slices = ranks.total(losses)
    figures: dict[str, float | None] = {"val_loss": float(total / slices)}
    figures["val_dice"] = mean_dice(ranks.total(counts))
    figures["val_auc"] = _auc(ranks.total(scores), data) if "classify" in tasks else None
    return figures


def overlap(predicted: torch.Tensor, truth: torch.Tensor) -> NDArray[np.float64]:
    """Pixel counts ``[N, R, 3]`` of intersection, prediction and truth, from masks ``[N, R, H, W]``."""
    both = (predicted & truth).sum(dim=(2, 3))
    return torch.stack([both, predicted.sum(dim=(2, 3)), truth.sum(dim=(2, 3))], dim=2).double().numpy()


def mean_dice(counts: NDArray[np.float64]) -> float | None:
    """Mean Dice over the patients and regions whose reference is not empty; None when all are empty.

    Args:
        counts: ``[studies, R, 3]`` as ``overlap`` gives, summed over each study's slices.
    """
    present = counts[..., 2] > 0
    if not present.any():
        return None
    both, predicted, truth = (counts[..., index][present] for index in range(3))
    return float(np.mean(2 * both / (predicted + truth)))


def _auc(scores: NDArray[np.float64], data: SliceData) -> float | None:
    known = np.array([value is not None for value in data.tumour()], dtype=bool)
    logits, labels = scores[:, known]
    if len(np.unique(labels)) < 2:
        return None
    return float(roc_auc_score(labels, logits))
