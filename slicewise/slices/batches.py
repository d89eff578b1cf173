"""Batches of slices for training and evaluation, straight from the store's memory maps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from slicewise.config import REGIONS
from slicewise.slices.regions import REGION_LABELS, known_mask
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

    def to(self, device: torch.device) -> Batch:
        """The batch on a device; to a GPU through pinned memory, without waiting for the copy."""
        if device.type != "cuda":
            return self
        names = ("image", "regions", "known", "tumour", "tumour_known")
        moved = {name: getattr(self, name).pin_memory().to(device, non_blocking=True) for name in names}
        return replace(self, **moved)


class SliceData:
    """The slices of some studies.

    Args:
        store: The slice store.
        keys: The studies, in order.
        selected_only: Take only the slices selected for training.

    Attributes:
        refs: For each slice, its study's position in ``keys`` and its row in the study.
    """

    def __init__(self, store: SliceStore, keys: Sequence[str], *, selected_only: bool) -> None:
        self.store = store
        self.keys = tuple(keys)
        columns = [_columns(store, key, selected_only) for key in self.keys]
        counts = [len(rows) for rows, _ in columns]
        self._study = np.repeat(np.arange(len(self.keys), dtype=np.intp), counts)
        self._row = np.concatenate([np.zeros(0, dtype=np.intp), *(rows for rows, _ in columns)])
        self._tumour = np.concatenate([np.zeros(0, dtype=np.float32), *(tumour for _, tumour in columns)])
        self.refs: list[tuple[int, int]] = list(zip(self._study.tolist(), self._row.tolist(), strict=True))
        self._masked = np.array([store.studies[key].has_labels for key in self.keys], dtype=bool)
        known = [known_mask(store.studies[key].known_regions) for key in self.keys]
        self._known = np.array(known, dtype=bool).reshape(-1, len(REGIONS))

    def __len__(self) -> int:
        return len(self.refs)

    @property
    def has_masks(self) -> bool:
        """Whether any study has a mask."""
        return bool(self._masked.any())

    def known_regions(self) -> list[str]:
        """The regions that at least one study's mask tells."""
        told = self._known[self._masked].any(axis=0)
        return [name for name, known in zip(REGIONS, told, strict=True) if known]

    def tumour(self) -> list[bool | None]:
        """The class of every slice; None where unknown."""
        return [None if np.isnan(value) else bool(value) for value in self._tumour]

    def sources(self) -> list[str]:
        """The source of every slice."""
        names = [self.store.studies[key].source for key in self.keys]
        return [names[at] for at in self._study.tolist()]

    def fetch(self, indices: Sequence[int]) -> Batch:
        """Read the slices ``indices`` into one batch."""
        chosen = np.asarray(indices, dtype=np.intp)
        study, tumour = self._study[chosen], self._tumour[chosen]
        known = torch.from_numpy(self._known[study]).float()
        for at, row in self._pairs(chosen):
            self.store.prefetch(self.keys[at], row)
        image = np.stack([self.store.images(self.keys[at])[row] for at, row in self._pairs(chosen)])
        planes = np.zeros((len(chosen), *image.shape[2:]), dtype=np.uint8)
        for plane, (at, row) in zip(planes, self._pairs(chosen), strict=True):
            if self._masked[at]:
                plane[...] = self.store.labels(self.keys[at])[row]
        return Batch(
            image=torch.from_numpy(image).float(),
            regions=_regions(torch.from_numpy(planes)) * known[:, :, None, None],
            known=known,
            tumour=torch.from_numpy(np.nan_to_num(tumour)),
            tumour_known=torch.from_numpy(~np.isnan(tumour)).float(),
            study=study,
        )

    def _pairs(self, chosen: NDArray[np.intp]) -> Iterator[tuple[int, int]]:
        return zip(self._study[chosen].tolist(), self._row[chosen].tolist(), strict=True)

    def batches(self, order: Sequence[int], batch_size: int) -> Iterator[Batch]:
        """The slices in the given order, batch by batch; the last batch may be smaller."""
        for start in range(0, len(order), batch_size):
            yield self.fetch(order[start : start + batch_size])


def _columns(store: SliceStore, key: str, selected_only: bool) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """The rows of a study's slices that take part, and the class of each: 0, 1, or NaN where unknown."""
    slices = store.studies[key].slices
    tumour = np.array(slices.tumour, dtype=np.float32)  # None becomes NaN
    rows = np.flatnonzero(slices.selected) if selected_only else np.arange(len(slices))
    return rows.astype(np.intp), tumour[rows]


def _regions(labels: Tensor) -> Tensor:
    """Label planes ``[N, H, W]`` uint8 to region maps ``[N, 3, H, W]`` float32."""
    maps = torch.zeros((len(labels), len(REGIONS), *labels.shape[1:]))
    for value in sorted(set().union(*REGION_LABELS.values())):
        here = (labels == value).float()
        for at, name in enumerate(REGIONS):
            if value in REGION_LABELS[name]:
                maps[:, at] += here
    return maps
