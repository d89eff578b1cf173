"""Near-duplicates among single images: a perceptual hash nominates pairs, registration confirms them.

Two pictures are the same picture when, after one is mirrored, turned, stretched and shifted onto the other, their
fine detail correlates.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slicewise.slices.fingerprint import (
    HASH_BITS,
    ORIENTATIONS,
    VIEWS,
    WORDS,
    Hashes,
    Plane,
    hashes,
    oriented,
    thumbnails,
)
from slicewise.slices.registration import registered_correlation
from slicewise.slices.store import SliceStore

logger = logging.getLogger(__name__)
BLOCK = 512
# Registrations at most, some minutes of work: beyond that only the closest hashes are followed up.
MAX_NOMINEES = 30_000
NOMINEE = np.dtype([("first", "u4"), ("second", "u4"), ("view", "u1"), ("orientation", "u1"), ("distance", "u1")])
Nominees = NDArray[np.void]


@dataclass(frozen=True)
class Twins:
    """Two images that show the same picture, by their keys, and how well they correlate once registered."""

    first: str
    second: str
    similarity: float


def near_duplicates(store: SliceStore, keys: Sequence[str], max_bits: int, correlation: float) -> list[Twins]:
    """Pairs of single images that show the same picture, whatever its size, frame, contrast or compression.

    Args:
        store: The slice store.
        keys: Studies of one slice each; give one of each set of identical ones.
        max_bits: Pairs whose hashes differ in more of their 144 bits are not looked at.
        correlation: Registered thumbnails that correlate at least so much show the same picture.

    Returns:
        The pairs, sorted.
    """
    if len(keys) < 2:
        return []
    codes = np.stack([[hashes(view) for view in thumbnails(store.images(key)[0])] for key in keys])
    seen: dict[int, Plane] = {}

    def views(index: int) -> Plane:
        if index not in seen:
            seen[index] = thumbnails(store.images(keys[index])[0])
        return seen[index]

    similarity: dict[tuple[int, int], float] = {}
    for pair in nominate(codes, max_bits):
        first, second, view = int(pair["first"]), int(pair["second"]), int(pair["view"])
        turned = oriented(views(first)[view], int(pair["orientation"]))
        found = registered_correlation(turned, views(second)[view])
        if found >= correlation:
            similarity[first, second] = max(found, similarity.get((first, second), 0.0))
    return [Twins(keys[a], keys[b], value) for (a, b), value in sorted(similarity.items())]


def nominate(codes: Hashes, max_bits: int, limit: int = MAX_NOMINEES) -> Nominees:
    """Pairs whose hashes differ in at most ``max_bits`` bits in some view and orientation.

    Every pair is compared, block by block, by three machine words: memory is bounded by the block and the limit.
    Bands of bits that must agree exactly would miss most pairs at these distances.

    Args:
        codes: ``[n, view, orientation, word]``.
        max_bits: Largest Hamming distance.
        limit: How many pairs to give; the closest ones.

    Returns:
        Records of ``first`` and ``second`` (indices, the first is lower), ``view``, ``orientation`` (how the first
        must be turned to lie on the second, see ``oriented``) and ``distance``; the closest first.
    """
    found, dropped = np.zeros(0, dtype=NOMINEE), HASH_BITS + 1
    for start in range(0, len(codes), BLOCK):
        parts = [found]
        for other in range(start, len(codes), BLOCK):
            parts += [_nominate_block(codes, start, other, view, max_bits) for view in range(VIEWS)]
        found = np.concatenate(parts)
        found = found[np.lexsort((found["view"], found["second"], found["first"], found["distance"]))]
        if len(found) > limit:
            dropped = min(dropped, int(found["distance"][limit]))
            found = found[:limit]
    if dropped <= max_bits:
        logger.warning(
            "too many images are alike: pairs that differ in %d bits or more are not compared, though %d are allowed",
            dropped,
            max_bits,
        )
    return found


def _nominate_block(codes: Hashes, start: int, other: int, view: int, max_bits: int) -> Nominees:
    """The nominees between the images from ``start`` and those from ``other`` on, one block of each."""
    rows = codes[start : start + BLOCK, view]
    columns = np.ascontiguousarray(codes[other : other + BLOCK, view, 0].T)
    nearest = np.stack([_distances(rows[:, turn], columns) for turn in range(ORIENTATIONS)])
    first, second = np.nonzero(nearest.min(axis=0) <= max_bits)
    below = start + first < other + second
    first, second = first[below], second[below]
    among = nearest[:, first, second]
    found = np.empty(len(first), dtype=NOMINEE)
    found["first"], found["second"], found["view"] = start + first, other + second, view
    found["orientation"], found["distance"] = among.argmin(axis=0), among.min(axis=0)
    return found


def _distances(rows: Hashes, columns: Hashes) -> NDArray[np.uint8]:
    total = np.zeros((len(rows), columns.shape[1]), dtype=np.uint8)
    for word in range(WORDS):
        total += np.bitwise_count(rows[:, word, None] ^ columns[word])
    return total
