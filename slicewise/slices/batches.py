"""Batches of slices for training and evaluation, straight from the store's memory maps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from slicewise.config import REGIONS
from slicewise.slices.regions import known_mask, region_maps
from slicewise.slices.store import SliceStore


@dataclass(frozen=True)
class Batch:
    """Slices and what is known of them.

    Attributes:
        image: ``[N, C, H, W]`` float32.
        regions: ``[N, 3, H, W]`` float32, 0 or 1; 0 where unknown.
        known: ``[N, 3]`` float32, 1 where the region is known for that slice.
        tumour: ``[N]`` float32, 0 or 1; 0 where unknown.
        tumour_known: ``[N]`` float32.
        study: ``[N]`` position of each slice's study in the data set.
    """

    image: Tensor
    regions: Tensor
    known: Tensor
    tumour: Tensor
    tumour_known: Tensor
    study: NDArray[np.intp]


class SliceData:
    """The slices of some studies.

    Args:
        store: The slice store.
        keys: The studies, in order.
        selected_only: Take only the slices selected for training.
    """

    def __init__(self, store: SliceStore, keys: Sequence[str], *, selected_only: bool) -> None:
        self.store = store
        self.keys = tuple(keys)
        self.refs = [
            (position, row)
            for position, key in enumerate(self.keys)
            for row, entry in enumerate(store.studies[key].slices)
            if entry.selected or not selected_only
        ]
        self._images = [store.images(key) for key in self.keys]
        self._labels = [store.labels(key) if store.studies[key].has_labels else None for key in self.keys]
        self._known = [known_mask(store.studies[key].known_regions) for key in self.keys]

    def __len__(self) -> int:
        return len(self.refs)

    @property
    def has_masks(self) -> bool:
        """Whether any study has a mask."""
        return any(labels is not None for labels in self._labels)

    def known_regions(self) -> list[str]:
        """The regions that at least one study's mask tells."""
        masked = [known for known, labels in zip(self._known, self._labels, strict=True) if labels is not None]
        told = np.any(masked, axis=0) if masked else np.zeros(len(REGIONS), dtype=bool)
        return [name for name, known in zip(REGIONS, told, strict=True) if known]

    def tumour(self) -> list[bool | None]:
        """The class of every slice; None where unknown."""
        return [self.store.studies[self.keys[position]].slices[row].tumour for position, row in self.refs]

    def fetch(self, indices: Sequence[int]) -> Batch:
        """Read the slices ``indices`` into one batch."""
        refs = [self.refs[index] for index in indices]
        image = np.stack([self._images[position][row] for position, row in refs])
        size = image.shape[-1]
        planes = np.zeros((len(refs), size, size), dtype=np.uint8)
        for at, (position, row) in enumerate(refs):
            labels = self._labels[position]
            if labels is not None:
                planes[at] = labels[row]
        known = np.stack([self._known[position] for position, _ in refs])
        tumour = [self.store.studies[self.keys[position]].slices[row].tumour for position, row in refs]
        return Batch(
            image=torch.from_numpy(image).float(),
            regions=torch.from_numpy(region_maps(planes) & known[:, :, None, None]).float(),
            known=torch.from_numpy(known).float(),
            tumour=torch.tensor([float(bool(value)) for value in tumour]),
            tumour_known=torch.tensor([float(value is not None) for value in tumour]),
            study=np.array([position for position, _ in refs], dtype=np.intp),
        )

    def batches(self, order: Sequence[int], batch_size: int) -> Iterator[Batch]:
        """The slices in the given order, batch by batch; the last batch may be smaller."""
        for start in range(0, len(order), batch_size):
            yield self.fetch(order[start : start + batch_size])
