"""Slices of which a network sees some modalities only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from slicewise.config import MODALITIES
from slicewise.slices.batches import Batch, SliceData
from slicewise.slices.store import SliceStore

SHOWN = {"all": MODALITIES, "flair": ("flair",)}


class Shown(SliceData):
    """Whole studies, with other modalities than ``shown`` set to zero, as where a scan lacks them."""

    def __init__(self, store: SliceStore, keys: Sequence[str], shown: Sequence[str] = MODALITIES) -> None:
        super().__init__(store, keys, selected_only=False)
        self._hidden = [at for at, name in enumerate(store.index.preprocessing.modalities) if name not in shown]

    def batches(self, order: Sequence[int], batch_size: int) -> Iterator[Batch]:
        for batch in super().batches(order, batch_size):
            image = batch.image.clone()
            image[:, self._hidden] = 0
            yield replace(batch, image=image)
