"""Patient groups: everything that must stay on one side of a split."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from slicewise.slices.store import SliceStore, StudyEntry

THUMBNAIL = 16


class _Union:
    """Disjoint sets over strings."""

    def __init__(self, items: Iterable[str]) -> None:
        self.parent = {item: item for item in items}

    def find(self, item: str) -> str:
        while self.parent[item] != item:
            self.parent[item] = self.parent[self.parent[item]]
            item = self.parent[item]
        return item

    def join(self, a: str, b: str) -> None:
        first, second = sorted((self.find(a), self.find(b)))
        self.parent[second] = first


def patient_groups(
    store: SliceStore, aliases: Mapping[str, Iterable[str]], near_duplicate_correlation: float
) -> dict[str, list[str]]:
    """Join studies of one patient, of one person under several names, and duplicates.

    Args:
        store: The slice store.
        aliases: A patient's name → further names of the same person.
        near_duplicate_correlation: 2D images whose thumbnails correlate at least so much are near-duplicates.

    Returns:
        Group name → keys of its studies, both sorted.
    """
    union = _Union(store.studies)
    names = {alias: name for name, others in aliases.items() for alias in others}
    first_of: dict[str, str] = {}
    for key, study in store.studies.items():
        marks = [f"content:{study.content_sha256}"]
        if study.patient_id is not None:
            marks.append(f"patient:{names.get(study.patient_id, study.patient_id)}")
        for mark in marks:
            union.join(key, first_of.setdefault(mark, key))
    for a, b in near_duplicates(store, near_duplicate_correlation):
        union.join(a, b)
    groups: dict[str, list[str]] = defaultdict(list)
    for key in sorted(store.studies):
        groups[union.find(key)].append(key)
    return dict(groups)


def near_duplicates(store: SliceStore, correlation: float) -> list[tuple[str, str]]:
    """Pairs of 2D images that show the same picture, whatever its size, brightness or compression."""
    keys = [key for key, study in store.studies.items() if _is_single_image(study)]
    if len(keys) < 2:
        return []
    thumbnails = np.stack([_thumbnail(store.images(key)[0]) for key in keys])
    matrix = thumbnails @ thumbnails.T
    rows, columns = np.nonzero(np.triu(matrix >= correlation, k=1))
    return [(keys[a], keys[b]) for a, b in zip(rows, columns, strict=True)]


def _is_single_image(study: StudyEntry) -> bool:
    return study.patient_id is None


def _thumbnail(image: NDArray[np.float16]) -> NDArray[np.float64]:
    """The mean channel, block-averaged to 16×16, with zero mean and unit length."""
    plane = image.astype(np.float64).sum(axis=0)
    edges = np.linspace(0, plane.shape[0], THUMBNAIL + 1).astype(int)[:-1]
    blocks = np.add.reduceat(np.add.reduceat(plane, edges, axis=0), edges, axis=1).ravel()
    blocks -= blocks.mean()
    norm = float(np.linalg.norm(blocks))
    return blocks / norm if norm > 0 else blocks
