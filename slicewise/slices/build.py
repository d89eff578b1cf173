"""The ``preprocess`` stage: a dataset folder to a slice store."""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from slicewise.config import PreprocessConfig
from slicewise.errors import StoreError
from slicewise.files import atomic_folder
from slicewise.logs import configure_logging
from slicewise.progress import Update
from slicewise.slices.prepare import prepare_study
from slicewise.slices.store import SliceStore, StoreIndex, StudyEntry, StudyFailure, write_index
from slicewise.studies.dataset import Dataset, load_dataset
from slicewise.studies.memory import keep_freed_memory
from slicewise.studies.study import StudyRecord

logger = logging.getLogger(__name__)
QUEUED_PER_WORKER = 2  # one that is worked on, and the next one at hand


def build_store(
    dataset: Path, out: Path, config: PreprocessConfig, seed: int, update: Update | None = None
) -> SliceStore:
    """Preprocess every study of a dataset into a store.

    A study that fails is named, left out and listed in the index; the others go on. Memory is bounded whatever
    the number of studies: each worker holds one study at a time (its volumes as they are in the files, the
    largest file once more as it is packed, and its finished slices), this process holds the index.

    Args:
        dataset: A dataset folder made by ``download``.
        out: The store's folder; replaced when it exists.
        config: The section ``preprocess``.
        seed: Seed of the slice selection.
        update: Shows progress.

    Raises:
        SourceError: The dataset cannot be read.
        StoreError: More than ``max_failed_share`` of the studies failed.
    """
    data = load_dataset(dataset)
    with atomic_folder(out) as folder:
        index = write_store(data, data.records, folder, config, seed, update)
        check_failures(index.failures, len(data.records), config.max_failed_share)
    return SliceStore(out)


def write_store(
    data: Dataset,
    records: Sequence[StudyRecord],
    folder: Path,
    config: PreprocessConfig,
    seed: int,
    update: Update | None = None,
) -> StoreIndex:
    """Preprocess some studies of a dataset into an empty folder, whatever the number of failures.

    Args:
        data: The dataset; its digest goes into the index.
        records: The studies.
        folder: The store's folder.
        config: The section ``preprocess``.
        seed: Seed of the slice selection.
        update: Shows progress.
    """
    done: list[StudyEntry] = []
    failures: list[StudyFailure] = []
    for outcome in _prepare_all(records, data.root, folder, config, seed):
        if isinstance(outcome, StudyEntry):
            done.append(outcome)
        else:
            logger.warning("left out: %s", outcome.reason)
            failures.append(outcome)
        if update:
            update(len(done) + len(failures), len(records), outcome.study_id)
    index = StoreIndex(
        preprocessing=config.slice,
        data_digest=data.digest,
        sources=tuple(sorted({record.source for record in records})),
        studies=tuple(sorted(done, key=lambda study: study.key)),
        failures=tuple(sorted(failures, key=lambda failure: failure.study_id)),
    )
    write_index(folder, index)
    return index


def check_failures(failures: Sequence[StudyFailure], total: int, limit: float) -> None:
    """Refuse a store of which too many studies are missing.

    Args:
        failures: The studies left out, sorted by id.
        total: How many studies there were.
        limit: The share of them that may fail; never all.

    Raises:
        StoreError: More failed; names the first.
    """
    if len(failures) > limit * total or len(failures) == total:
        raise StoreError(
            f"{len(failures)} of {total} studies are unusable, more than the share allowed ({limit:.0%}); "
            f"the first: {failures[0].reason}",
            "repair or remove these studies, or raise preprocess.max_failed_share",
        )


def _prepare_all(
    records: Sequence[StudyRecord], root: Path, folder: Path, config: PreprocessConfig, seed: int
) -> Iterator[StudyEntry | StudyFailure]:
    """Prepare the studies in worker processes; a worker that dies costs its own study only.

    Which study it died on is not known: those under way at that moment are tried again alone, one process each.
    """
    workers = min(config.workers or os.cpu_count() or 1, len(records))
    waiting = deque(records)
    while waiting:
        under_way: dict[Future[StudyEntry | StudyFailure], StudyRecord] = {}
        try:
            with _pool(workers) as pool:
                while waiting or under_way:
                    while waiting and len(under_way) < workers * QUEUED_PER_WORKER:
                        record = waiting.popleft()
                        under_way[pool.submit(prepare_study, record, root, folder, config, seed)] = record
                    for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                        outcome = future.result()
                        del under_way[future]
                        yield outcome
        except BrokenProcessPool:
            logger.warning("a worker died; the %d studies under way are tried again alone", len(under_way))
        for record in under_way.values():
            yield _prepare_alone(record, root, folder, config, seed)


def _prepare_alone(
    record: StudyRecord, root: Path, folder: Path, config: PreprocessConfig, seed: int
) -> StudyEntry | StudyFailure:
    try:
        with _pool(1) as pool:
            return pool.submit(prepare_study, record, root, folder, config, seed).result()
    except BrokenProcessPool:
        reason = f"study {record.study_id}: the worker died on it (out of memory?)"
        return StudyFailure(study_id=record.study_id, reason=reason)


def _pool(workers: int) -> ProcessPoolExecutor:
    debug = logger.isEnabledFor(logging.DEBUG)
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start_worker, (debug,))


def _start_worker(debug: bool) -> None:
    configure_logging(debug=debug)
    keep_freed_memory()
