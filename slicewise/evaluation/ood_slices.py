"""Slices of one side of the split, described for the out-of-distribution score."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from slicewise.evaluation.outputs import group_names
from slicewise.inference.ood_distance import Matrix
from slicewise.inference.slice_statistics import Described, describe_slices, pool_features
from slicewise.model.device import place_image
from slicewise.model.network import MultiTaskUNet
from slicewise.slices.batches import SliceData
from slicewise.slices.split import Side, load_split
from slicewise.slices.store import SliceStore

BATCH = 32
Numbers = NDArray[np.float32]


@dataclass(frozen=True)
class SideSlices:
    """Some slices of one side of the split.

    Attributes:
        data: All of the side.
        rows: Which of ``data`` are taken.
        names: The patient group of each study.
    """

    data: SliceData
    rows: list[int]
    names: list[str]

    @classmethod
    def open(cls, store: SliceStore, split: Path, side: Side, total: int) -> SideSlices:
        """About ``total`` slices, the same number of every study (all, if it has fewer), evenly along it."""
        data = SliceData(store, load_split(split).side(side), selected_only=False)
        groups = group_names(split)
        return cls(data, spread_rows(data, total), [groups[key] for key in data.keys])

    @property
    def patients(self) -> int:
        """How many patient groups the slices are of."""
        return len({self.names[self.data.refs[row][0]] for row in self.rows})

    def batches(self) -> Iterator[tuple[Numbers, NDArray[np.intp], NDArray[np.intp]]]:
        """Images ``[N, C, size, size]``, patient group and study; slices that are empty throughout are left out."""
        order = sorted(set(self.names))
        number = np.array([order.index(name) for name in self.names], dtype=np.intp)
        for batch in self.data.batches(self.rows, BATCH):
            images = batch.image.numpy()
            full = images.any(axis=(1, 2, 3))
            study = batch.study[full]
            yield images[full], number[study], study


def spread_rows(data: SliceData, total: int) -> list[int]:
    """About ``total`` slices, the same number of every study (all, if it has fewer), evenly along it."""
    studies = np.array([study for study, _ in data.refs], dtype=np.intp)
    each = max(1, total // max(len(data.keys), 1))
    rows: list[int] = []
    for study in np.unique(studies):
        mine = np.flatnonzero(studies == study)
        at = np.linspace(0, len(mine) - 1, min(each, len(mine))).round().astype(int)
        rows += mine[at].tolist()
    return rows


@dataclass(frozen=True)
class Sample:
    """Described slices.

    Attributes:
        described: Their statistics.
        pooled: ``[N, F]`` features.
        groups: ``[N]`` number of the patient group.
    """

    described: Described
    pooled: Numbers
    groups: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.groups)

    def weights(self) -> Matrix:
        """Every patient weighs the same, however many slices there are of it."""
        _, patient, counts = np.unique(self.groups, return_inverse=True, return_counts=True)
        return np.asarray(1 / counts[patient])


def describe(network: MultiTaskUNet, images: Numbers, groups: NDArray[np.intp]) -> Sample:
    """Statistics and features of a batch ``[N, C, size, size]``."""
    device = next(network.parameters()).device
    with torch.inference_mode():
        features = network.encoder(place_image(torch.from_numpy(images), device))
    return Sample(describe_slices(images), pool_features(features), groups)


def join(samples: Sequence[Sample]) -> Sample:
    """Several samples, at least one, as one."""
    return Sample(
        Described(
            np.concatenate([sample.described.intensity for sample in samples]),
            np.concatenate([sample.described.shape for sample in samples]),
            np.concatenate([sample.described.present for sample in samples]),
        ),
        np.concatenate([sample.pooled for sample in samples]),
        np.concatenate([sample.groups for sample in samples]),
    )
