"""What a stage watches on the validation split."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from slicewise.config import REGIONS
from slicewise.model.device import place_image
from slicewise.model.losses import DEFAULT_LOSSES, Losses
from slicewise.model.network import MultiTaskUNet
from slicewise.slices.batches import Batch, SliceData


@dataclass(frozen=True)
class Inferred:
    """Network outputs of one batch, on the CPU.

    Attributes:
        batch: The batch.
        tumour: ``[N]`` logits.
        regions: ``[N, 3, H, W]`` logits, or None when not asked for.
    """

    batch: Batch
    tumour: torch.Tensor
    regions: torch.Tensor | None


def infer(network: MultiTaskUNet, data: SliceData, batch_size: int, *, segment: bool = True) -> Iterator[Inferred]:
    """Run the network in evaluation mode over all slices of ``data``, in order."""
    device = next(network.parameters()).device
    network.eval()
    for batch in data.batches(range(len(data)), batch_size):
        with torch.inference_mode():
            logits = network(place_image(batch.image, device), segment=segment)
        regions = None if logits.regions is None else logits.regions.float().cpu()
        yield Inferred(batch, logits.tumour.float().cpu(), regions)


def validate_stage(
    network: MultiTaskUNet,
    data: SliceData,
    batch_size: int,
    tasks: tuple[str, ...],
    weights: tuple[float, float] = (1.0, 1.0),
    loss_of: Losses = DEFAULT_LOSSES,
) -> dict[str, float | None]:
    """Loss, mean Dice over patients and regions, and ROC-AUC over slices; None where undefined.

    Args:
        network: The network.
        data: The validation slices.
        batch_size: Slices in a batch.
        tasks: Which losses and figures take part.
        weights: Of the segmentation and the classification loss, as in training.
        loss_of: The two losses, as in training.
    """
    counts = np.zeros((len(data.keys), len(REGIONS), 3))
    losses, sizes, scores, truth = [], [], [], []
    for out in infer(network, data, batch_size, segment="segment" in tasks):
        batch = out.batch
        loss = torch.zeros(())
        if out.regions is not None:
            loss = loss + weights[0] * loss_of.segmentation(out.regions, batch.regions, batch.known)
            np.add.at(counts, batch.study, overlap(out.regions > 0, batch.regions > 0))
        if "classify" in tasks:
            loss = loss + weights[1] * loss_of.classification(out.tumour, batch.tumour, batch.tumour_known)
            known = batch.tumour_known > 0
            scores.append(out.tumour[known].numpy())
            truth.append(batch.tumour[known].numpy())
        losses.append(float(loss))
        sizes.append(len(batch.image))
    figures: dict[str, float | None] = {"val_loss": float(np.average(losses, weights=sizes))}
    figures["val_dice"] = mean_dice(counts)
    figures["val_auc"] = _auc(scores, truth)
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


def _auc(scores: list[NDArray[np.float32]], truth: list[NDArray[np.float32]]) -> float | None:
    if not truth:
        return None
    labels = np.concatenate(truth)
    if len(np.unique(labels)) < 2:
        return None
    return float(roc_auc_score(labels, np.concatenate(scores)))
