"""The ``split`` stage: train, validation and test by patient group, stored as a file, and the leakage audit."""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from slicewise.config import SplitConfig
from slicewise.errors import LeakageError, StoreError
from slicewise.files import write_json
from slicewise.slices.groups import near_duplicates, patient_groups
from slicewise.slices.store import SliceStore

logger = logging.getLogger(__name__)
FILE = "split.json"
Side = Literal["train", "val", "test"]
SIDES: tuple[Side, ...] = ("train", "val", "test")


class Split(BaseModel):
    """The content of ``split.json``.

    Attributes:
        groups: Group name → keys of its studies.
        train: Keys of the studies to learn from.
        val: Keys for early stopping, calibration and thresholds.
        test: Keys that are judged once, at the end.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["slicewise-split"] = "slicewise-split"
    version: Literal[1] = 1
    seed: int
    data_digest: str
    groups: dict[str, tuple[str, ...]]
    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]
    audit: dict[str, int] = {}

    def side(self, name: Side) -> tuple[str, ...]:
        """The study keys of one side."""
        return {"train": self.train, "val": self.val, "test": self.test}[name]


def make_split(store: SliceStore, config: SplitConfig, seed: int) -> Split:
    """Split by patient group, stratified by source and tumour presence.

    Raises:
        StoreError: Fewer than three patient groups.
    """
    groups = patient_groups(store, config.aliases, config.near_duplicate_correlation)
    if len(groups) < len(SIDES):
        raise StoreError(
            f"{len(groups)} patient group(s) cannot make train, validation and test",
            "give studies of at least three patients",
        )
    sides = _assign(store, groups, config.fractions, seed)
    return Split(
        seed=seed,
        data_digest=store.index.data_digest,
        groups={name: tuple(keys) for name, keys in groups.items()},
        train=tuple(sorted(sides[0])),
        val=tuple(sorted(sides[1])),
        test=tuple(sorted(sides[2])),
    )


def _assign(
    store: SliceStore, groups: Mapping[str, Sequence[str]], fractions: Sequence[float], seed: int
) -> list[list[str]]:
    """Deal the groups of each stratum to the side that lags furthest behind its share of groups.

    Lag is counted in the stratum first and over all strata second, so that small strata do not all lose their
    validation and test parts to rounding; over all strata the sides get their shares to the group.
    """
    strata: dict[tuple[str, bool], list[str]] = defaultdict(list)
    for name, keys in groups.items():
        first = store.studies[keys[0]]
        strata[(first.source, any(store.studies[key].has_tumour for key in keys))].append(name)
    rng = np.random.default_rng(seed)
    sides: list[list[str]] = [[] for _ in SIDES]
    overall = np.zeros(len(SIDES))
    share = np.asarray(fractions)
    small = [max(1, round(fraction * len(groups))) for fraction in fractions[1:]]
    while sum(small) >= len(groups):
        small[int(np.argmax(small))] -= 1
    quota = np.array([len(groups) - sum(small), *small])
    for stratum in sorted(strata, key=lambda item: (-len(strata[item]), item)):
        names = rng.permutation(sorted(strata[stratum]))
        here = np.zeros(len(SIDES))
        for name in names:
            lag = share * (here.sum() + 1) - here + 0.5 * (share * (overall.sum() + 1) - overall)
            side = int(np.argmax(np.where(overall < quota, lag, -np.inf)))
            sides[side].extend(groups[str(name)])
            here[side] += 1
            overall[side] += 1
    return sides


def audit_split(store: SliceStore, split: Split, config: SplitConfig) -> dict[str, int]:
    """Look for leakage, from the store alone and not from what the split says of itself.

    Returns:
        What was looked at: counts of studies, groups, duplicate pairs found (all on one side), and duplicates
        whose labels disagree.

    Raises:
        LeakageError: A patient group or a duplicate pair lies on two sides, or a study is on none or two.
    """
    listed = [key for side in SIDES for key in split.side(side)]
    if sorted(listed) != sorted(store.studies):
        odd = sorted(set(listed) ^ set(store.studies)) or sorted({k for k in listed if listed.count(k) > 1})
        raise LeakageError(f"the split does not list every study once: {', '.join(odd[:3])}", "split again")
    side_of = {key: side for side in SIDES for key in split.side(side)}
    groups = patient_groups(store, config.aliases, config.near_duplicate_correlation)
    for name, keys in groups.items():
        found = {side_of[key] for key in keys}
        if len(found) > 1:
            where = ", ".join(f"{key} in {side_of[key]}" for key in keys[:4])
            raise LeakageError(f"patient group {name} is on {len(found)} sides: {where}", "split again")
    pairs = near_duplicates(store, config.near_duplicate_correlation)
    disagree = [pair for pair in pairs if store.studies[pair[0]].has_tumour != store.studies[pair[1]].has_tumour]
    for a, b in disagree:
        logger.warning("%s and %s look alike but one is labelled tumour and the other not", a, b)
    return {
        "studies": len(listed),
        "patient_groups": len(groups),
        "groups_of_several_studies": sum(len(keys) > 1 for keys in groups.values()),
        "near_duplicate_pairs": len(pairs),
        "duplicates_that_disagree": len(disagree),
    }


def split_store(store_folder: Path, out: Path, config: SplitConfig, seed: int) -> Split:
    """The stage: split, audit, and store ``split.json`` in the folder ``out``.

    Raises:
        StoreError: The store cannot be read or has too few patients.
        LeakageError: The audit failed.
    """
    store = SliceStore(store_folder)
    split = make_split(store, config, seed)
    audited = split.model_copy(update={"audit": audit_split(store, split, config)})
    write_json(out / FILE, audited.model_dump(mode="json"))
    counts = ", ".join(f"{side} {len(audited.side(side))}" for side in SIDES)
    logger.info("split %d patient groups: %s; audit passed", len(split.groups), counts)
    return audited


def load_split(folder: Path) -> Split:
    """Read ``split.json`` from ``folder``.

    Raises:
        StoreError: Missing or damaged.
    """
    try:
        return Split.model_validate(json.loads((folder / FILE).read_text(encoding="utf-8")))
    except (OSError, json.JSONDecodeError, ValidationError, UnicodeDecodeError) as error:
        raise StoreError(f"{folder / FILE} is missing or damaged", "run 'slicewise split' again") from error
