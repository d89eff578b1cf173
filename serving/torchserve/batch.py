"""A TorchServe batch of requests of all kinds, predicted together."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from serving.torchserve.jobs import Job, Outcome, Reply, Served, failure, read_job
from slicewise.errors import InputError
from slicewise.inference.predictor import PredictOptions, Predictor, SliceInput

# So many slices at most go through the network together: a whole study must not take all memory.
CHUNK = 32

log = logging.getLogger(__name__)


def answer(requests: Sequence[tuple[Any, Mapping[str, str]]], predictor: Predictor, name: str) -> list[Reply]:
    """One reply for each request, in order; a bad one fails alone.

    Args:
        requests: Body and headers of each.
        predictor: The model.
        name: The name by which it is served.
    """
    model = Served(predictor.bundle, name)
    jobs = [_read(body, headers, model) for body, headers in requests]
    outcomes = iter(predict([job for job in jobs if isinstance(job, Job)], predictor))
    return [job if isinstance(job, Reply) else _write(job, next(outcomes)) for job in jobs]


def predict(jobs: Sequence[Job], predictor: Predictor) -> list[list[Outcome]]:
    """The outcomes of every job's items; items with equal options share network passes."""
    outcomes: list[list[Any]] = [list(job.items) for job in jobs]
    groups: defaultdict[PredictOptions, list[tuple[int, int]]] = defaultdict(list)
    for number, job in enumerate(jobs):
        for index, item in enumerate(job.items):
            if isinstance(item, SliceInput):
                groups[job.options].append((number, index))
    for options, places in groups.items():
        for start in range(0, len(places), CHUNK):
            chunk = places[start : start + CHUNK]
            items = [jobs[number].items[index] for number, index in chunk]
            results = predictor.predict([item for item in items if isinstance(item, SliceInput)], options)
            for (number, index), result in zip(chunk, results, strict=True):
                outcomes[number][index] = result
    return outcomes


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
