"""Slices of one side of the split, described for the out-of-distribution score."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from slicewise.evaluation.outputs import group_names
from slicewise.inference.slice_statistics import Described, describe_slices, pool_features
from slicewise.model.device import place_image
from slicewise.model.network import MultiTaskUNet
from slicewise.slices.batches import SliceData
from slicewise.slices.split import Side, load_split
from slicewise.slices.store import SliceStore

BATCH = 32
SUBSETS = 2  # further passes of each training slice, with modalities withheld
SET_SLICES = 120  # validation slices for each set of modalities
Numbers = NDArray[np.float32]


@dataclass(frozen=True)
class SideSlices:
    """Some slices of one side of the split.

    Attributes:
        data: All of the side.
        rows: Which of ``data`` are taken.
        names: The patient group of each study.
        numbers: ``[studies]`` its number among all groups of the split.
    """

    data: SliceData
    rows: list[int]
    names: list[str]
    numbers: NDArray[np.intp]

    @classmethod
    def open(cls, store: SliceStore, split: Path, side: Side, total: int) -> SideSlices:
        """About ``total`` slices, the same number of every study (all, if it has fewer), evenly along it."""
        data = SliceData(store, load_split(split).side(side), selected_only=False)
        groups = group_names(split)
        names, order = [groups[key] for key in data.keys], sorted(set(groups.values()))
        numbers = np.array([order.index(name) for name in names], dtype=np.intp)
        return cls(data, spread_rows(data, total), names, numbers)

    @property
    def patients(self) -> int:
        """How many patient groups the slices are of."""
        return len({self.names[self.data.refs[row][0]] for row in self.rows})

    def batches(self) -> Iterator[tuple[Numbers, NDArray[np.intp], NDArray[np.intp]]]:
        """Images ``[N, C, size, size]``, patient group and study; slices that are empty throughout are left out."""
        for batch in self.data.batches(self.rows, BATCH):
            images = batch.image.numpy()
            full = images.any(axis=(1, 2, 3))
            study = batch.study[full]
            yield images[full], self.numbers[study], study


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

    def take(self, rows: NDArray[np.integer[Any]] | NDArray[np.bool_]) -> Sample:
        """Some of the slices."""
        kept = Described(self.described.intensity[rows], self.described.shape[rows], self.described.present[rows])
        return Sample(kept, self.pooled[rows], self.groups[rows])


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


def training_sample(network: MultiTaskUNet, train: SideSlices) -> tuple[Sample, Sample]:
    """The training slices, whole and with modalities withheld; and wrong views of them, without features."""
    rng = np.random.default_rng(0)
    samples, wrong = [], []
    for images, patients, _ in train.batches():
        samples.append(describe(network, images, patients))
        nothing = np.zeros((len(images), 0), dtype=np.float32)
        wrong += [Sample(view, nothing, patients) for view in wrong_views(images, samples[-1].described)]
        samples += [describe(network, withhold(images, rng), patients) for _ in range(SUBSETS)]
    return join(samples), join(wrong)


def held_out_sample(network: MultiTaskUNet, held: SideSlices) -> Sample:
    """The validation slices, with every set of modalities that they can show."""
    found = list(held.batches())
    images = np.concatenate([images for images, _, _ in found])
    groups = np.concatenate([groups for _, groups, _ in found])
    present = np.asarray(images.any(axis=(2, 3)))
    samples = []
    for number in range(1, 2 ** present.shape[1]):
        shown = (number >> np.arange(present.shape[1])) & 1 > 0
        able = np.flatnonzero(present[:, shown].all(axis=1))
        rows = able[np.linspace(0, len(able) - 1, min(SET_SLICES, len(able))).round().astype(int)]
        for part in np.array_split(rows, -(-len(rows) // BATCH) or 1):
            if len(part):
                visible = np.where(shown[:, None, None], images[part], np.float32(0))
                samples.append(describe(network, visible, groups[part]))
    return join(samples)


def withhold(images: Numbers, rng: np.random.Generator) -> Numbers:
    """Each slice with a random subset of its channels, all non-empty subsets equally likely."""
    present = np.asarray(images.any(axis=(2, 3)))
    kept = np.zeros_like(present)
    for row, there in enumerate(present):
        channels = np.flatnonzero(there)
        bits = int(rng.integers(1, 2 ** len(channels)))
        kept[row, channels] = [(bits >> at) & 1 for at in range(len(channels))]
    return np.asarray(images * kept[:, :, None, None], dtype=np.float32)


def wrong_views(images: Numbers, described: Described) -> list[Described]:
    """The slices upside down, on either side and inverted, and with another sequence in each channel.

    Telling true from altered training images needs no labels, and what is learned from it finds outliers: Golan and
    El-Yaniv, "Deep anomaly detection using geometric transformations", NeurIPS 2018.
    """
    turned = [np.rot90(images, turns, axes=(2, 3)) for turns in (1, 2, 3)]
    views = [describe_slices(view) for view in (*turned, -images)]
    channels = images.shape[1]
    for step in range(1, channels):
        order = (np.arange(channels) + step) % channels
        views.append(Described(described.intensity[:, order], described.shape, described.present[:, order]))
    return views
