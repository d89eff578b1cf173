"""Dealing groups to parts: the three sides of a split, or folds. Knows nothing of studies."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Stratum = tuple[str, str]
TUMOUR, NO_TUMOUR = "tumour", "none"


def deal(
    strata: Mapping[str, Stratum], shares: Sequence[float], seed: int, kept: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Deal the groups so that every part gets its share of them, over all and in each stratum.

    Within a stratum, each group goes to the part that lags furthest behind. Lag is counted in the stratum first
    and over all strata second, so that small strata do not all lose their small parts to rounding; over all strata
    the parts get their shares to the group. Then parts without tumour, or with nothing else, are helped where
    there is enough to go round.

    Args:
        strata: Group name → its source and tumour presence.
        shares: Of each part; they sum to 1.
        seed: Seed of the draw.
        kept: Group name → part, for the groups that have theirs already.

    Returns:
        Group name → part.
    """
    kept = kept or {}
    parts = dict(kept)
    rng = np.random.default_rng(seed)
    wanted = quotas(len(strata), shares)
    overall = np.bincount(list(kept.values()), minlength=len(shares)).astype(float)
    share = np.asarray(shares)
    members: dict[Stratum, list[str]] = defaultdict(list)
    for name in sorted(strata):
        members[strata[name]].append(name)
    for stratum in sorted(members, key=lambda item: (-len(members[item]), item)):
        here = np.zeros(len(shares))
        for name in members[stratum]:
            if name in kept:
                here[kept[name]] += 1
        for name in rng.permutation([name for name in members[stratum] if name not in kept]):
            part = _lagging(here, overall, share, wanted)
            parts[str(name)] = part
            here[part] += 1
            overall[part] += 1
    for presence in (TUMOUR, NO_TUMOUR):
        _spread(parts, strata, presence, kept, len(shares))
    return parts


def _lagging(
    here: NDArray[np.float64], overall: NDArray[np.float64], share: NDArray[np.float64], wanted: NDArray[np.int_]
) -> int:
    lag = share * (here.sum() + 1) - here + 0.5 * (share * (overall.sum() + 1) - overall)
    return int(np.argmax(np.where(overall < wanted, lag, -np.inf)))


def quotas(n: int, shares: Sequence[float]) -> NDArray[np.int_]:
    """How many of ``n`` groups each part gets, at least one while there are enough.

    Equal parts (folds) differ by one at most. Else the first part takes what rounding leaves, and halves go to the
    others: one patient more means more to a small validation or test part than to training.
    """
    if len(set(shares)) == 1:
        return np.array([n // len(shares) + (at < n % len(shares)) for at in range(len(shares))])
    rest = np.maximum(1, np.floor(np.asarray(shares[1:]) * n + 0.5 + 1e-9)).astype(int)
    while rest.sum() >= n and rest.max() > 0:
        rest[np.argmax(rest)] -= 1
    return np.array([n - rest.sum(), *rest])


def _spread(
    parts: dict[str, int], strata: Mapping[str, Stratum], presence: str, kept: Mapping[str, int], n_parts: int
) -> None:
    """Give each part a group of this tumour presence, by exchange with a part that has several; sizes stay."""
    other = NO_TUMOUR if presence == TUMOUR else TUMOUR
    free = sorted(name for name in parts if name not in kept)
    for part in reversed(range(n_parts)):  # test first, then validation
        have = Counter(at for name, at in parts.items() if strata[name][1] == presence)
        others = Counter(at for name, at in parts.items() if strata[name][1] == other)
        if have[part]:
            continue
        # The last group of the other kind stays, unless there are too few of these to go round anyway.
        spare = others[part] > 1 or others.total() < n_parts
        gives = [name for name in free if strata[name][1] == presence and have[parts[name]] > 1]
        takes = [name for name in free if parts[name] == part and (strata[name][1] not in (presence, other) or spare)]
        if gives and takes:
            give, take = _same_source(gives, takes, strata)
            parts[give], parts[take] = part, parts[give]


def _same_source(gives: Sequence[str], takes: Sequence[str], strata: Mapping[str, Stratum]) -> tuple[str, str]:
    """A pair of one source where there is one, so that the sources' shares stay too."""
    first_of = {strata[name][0]: name for name in reversed(takes)}
    for give in gives:
        if strata[give][0] in first_of:
            return give, first_of[strata[give][0]]
    return gives[0], takes[0]


def draw(
    names: Sequence[str], shares: Sequence[float], seed: int, kept: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Each group's part from the seed and its name alone; the shares hold on average only.

    Args:
        names: The groups.
        shares: Of each part; they sum to 1.
        seed: Mixed into the hash.
        kept: Groups that have their part already.
    """
    edges = np.cumsum(shares)[:-1]
    drawn = {name: int(np.searchsorted(edges, _uniform(f"{seed}:{name}"), side="right")) for name in sorted(names)}
    return drawn | dict(kept or {})


def _uniform(text: str) -> float:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2.0**64
