"""Preprocessing in shards: each makes a store of its part of the studies, and one merge makes the store of them all.

Which slices of a study are selected is drawn from the seed and the study's id alone, so the merged store is the
one that a single process would have written, to the last byte.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from slicewise.config import PreprocessConfig
from slicewise.errors import StoreError, UsageError
from slicewise.files import atomic_folder
from slicewise.progress import Update
from slicewise.slices.build import check_failures, write_store
from slicewise.slices.store import SliceStore, StoreIndex, StudyEntry, write_index
from slicewise.slices.store_index import STUDIES
from slicewise.studies.dataset import load_dataset

AGAIN = "run the shards again, all from one dataset and with the same settings"


def build_shard(
    dataset: Path,
    out: Path,
    config: PreprocessConfig,
    seed: int,
    shard: int,
    shards: int,
    update: Update | None = None,
) -> StoreIndex:
    """Preprocess every ``shards``-th study, the first being number ``shard``.

    Studies that fail are listed; whether they are too many is judged over all shards, by ``merge_shards``.

    Args:
        dataset: A dataset folder made by ``download``.
        out: The shard's folder, a slice store; replaced when it exists.
        config: The section ``preprocess``.
        seed: Seed of the slice selection.
        shard: From 0.
        shards: How many there are.
        update: Shows progress.

    Returns:
        The shard's index; without a study where there are more shards than studies.

    Raises:
        UsageError: There is no such shard.
        SourceError: The dataset cannot be read.
    """
    if not 0 <= shard < shards:
        raise UsageError(f"there is no shard {shard} of {shards}", "count them from 0")
    data = load_dataset(dataset)
    with atomic_folder(out) as folder:
        return write_store(data, data.records[shard::shards], folder, config, seed, update)


def merge_shards(shards: Sequence[Path], out: Path, max_failed_share: float = 1.0) -> SliceStore:
    """Make one store of all shards, as if one process had written it.

    Every file of a shard is checked against its digest first: shards have usually come over a network.

    Args:
        shards: Their folders, in any order; they are not changed.
        out: The store's folder; replaced when it exists.
        max_failed_share: As ``preprocess.max_failed_share``, of the studies of all shards.

    Raises:
        StoreError: A shard is missing or damaged, they do not belong together, or too many studies failed.
    """
    stores = [SliceStore(folder) for folder in shards]
    for store in stores:
        store.verify()
    index = _joined([store.index for store in stores])
    total = len(index.failures) + len(index.studies)
    if not total:
        raise StoreError("no study is in any of the shards", AGAIN)
    check_failures(index.failures, total, max_failed_share)
    with atomic_folder(out) as folder:
        for store in stores:
            for study in store.index.studies:
                shutil.copytree(
                    store.folder / STUDIES / study.key, folder / STUDIES / study.key, copy_function=_link_or_copy
                )
        write_index(folder, index)
    return SliceStore(out)


def _joined(indexes: Sequence[StoreIndex]) -> StoreIndex:
    if not indexes:
        raise StoreError("there is no shard to merge", AGAIN)
    first = indexes[0]
    for other in indexes[1:]:
        if (other.data_digest, other.preprocessing) != (first.data_digest, first.preprocessing):
            raise StoreError("the shards were made from different datasets or with different settings", AGAIN)
    studies = sorted((study for index in indexes for study in index.studies), key=lambda study: study.key)
    if twice := _twice(studies):
        raise StoreError(f"study {twice} is in two shards", AGAIN)
    return StoreIndex(
        preprocessing=first.preprocessing,
        data_digest=first.data_digest,
        sources=tuple(sorted({source for index in indexes for source in index.sources})),
        studies=tuple(studies),
        failures=tuple(
            sorted((item for index in indexes for item in index.failures), key=lambda item: item.study_id)
        ),
    )


def _twice(studies: Iterable[StudyEntry]) -> str:
    """The id of a study that is there twice, or nothing; the studies are sorted by key."""
    before = ""
    for study in studies:
        if study.key == before:
            return study.study_id
        before = study.key
    return ""


def _link_or_copy(source: str, target: str) -> None:
    """A store's files are never changed in place, so on one disk a second name is as good as a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
