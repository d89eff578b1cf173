"""A TorchServe batch of requests of all kinds, predicted together."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from serving.status import InternalItemError
from serving.torchserve.figures import BatchFigures
from serving.torchserve.jobs import Job, Outcome, Reply, Served, failure, read_job
from slicewise.errors import InputError
from slicewise.inference.predictor import PredictOptions, Predictor, SliceInput

# So many slices at most go through the network together: a whole study must not take all memory.
CHUNK = 32

log = logging.getLogger(__name__)


def answer(
    requests: Sequence[tuple[Any, Mapping[str, str]]],
    predictor: Predictor,
    model: Served,
    figures: BatchFigures | None = None,
) -> list[Reply]:
    """One reply for each request, in order; a bad one fails alone.

    Args:
        requests: Body and headers of each.
        predictor: The network.
        model: Its bundle as it is served.
        figures: Gets what the batch tells of itself.
    """
    figures = BatchFigures() if figures is None else figures
    start = time.perf_counter()
    jobs = [_read(body, headers, model) for body, headers in requests]
    read = time.perf_counter()
    good = [job for job in jobs if isinstance(job, Job)]
    figures.requests += sum(not isinstance(job, Job) or job.counted for job in jobs)
    outcomes = iter(predict(good, predictor, figures))
    predicted = time.perf_counter()
    replies = [job if isinstance(job, Reply) else _write(job, next(outcomes)) for job in jobs]
    figures.errors.update(job.code for job in jobs if isinstance(job, Reply))
    if figures.requests:
        figures.phases_s.update({"decode": read - start, "encode": time.perf_counter() - predicted})
    return replies


def predict(jobs: Sequence[Job], predictor: Predictor, figures: BatchFigures) -> list[list[Outcome]]:
    """The outcomes of every job's items; items with equal options share network passes."""
    outcomes: list[list[Any]] = [list(job.items) for job in jobs]
    groups: defaultdict[tuple[PredictOptions, bool], list[tuple[int, int]]] = defaultdict(list)
    for number, job in enumerate(jobs):
        for index, item in enumerate(job.items):
            if isinstance(item, SliceInput):
                groups[job.options, job.counted].append((number, index))
    for (options, counted), places in groups.items():
        for start in range(0, len(places), CHUNK):
            chunk = places[start : start + CHUNK]
            items: list[SliceInput] = [outcomes[number][index] for number, index in chunk]
            results = _predict_chunk(items, options, predictor)
            if counted:
                figures.add_chunk(items, results)
            for (number, index), result in zip(chunk, results, strict=True):
                outcomes[number][index] = result
    for job, found in zip(jobs, outcomes, strict=True):
        figures.add_errors([*found, *job.unread])
    return outcomes


def _predict_chunk(items: list[SliceInput], options: PredictOptions, predictor: Predictor) -> Sequence[Outcome]:
    """One network pass; a surprise in it fails these items and not the whole batch."""
    try:
        return predictor.predict(items, options)
    except Exception:
        log.exception("a group of %d slices could not be predicted", len(items))
        return [InternalItemError() for _ in items]


def _read(body: Any, headers: Mapping[str, str], model: Served) -> Job | Reply:
    try:
        return read_job(body, headers, model)
    except InputError as error:
        return failure(error)
    except Exception as error:  # one request's surprise must not take the batch with it
        log.exception("a request could not be read")
        return failure(error)


def _write(job: Job, outcomes: Sequence[Outcome]) -> Reply:
    try:
        return job.write(outcomes)
    except InputError as error:
        return failure(error)
    except Exception as error:
        log.exception("an answer could not be written")
        return failure(error)
