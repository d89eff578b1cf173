"""The routes for many images at once; each image succeeds or fails alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from fastapi import APIRouter, Request, Response

from serving.gateway.backend import Backend
from serving.gateway.model import SliceWiseModel
from serving.gateway.rest import schemas_slices as schemas
from serving.gateway.rest.asking import Asked, Clock, ask, patiently, reply, request_id
from serving.gateway.rest.openapi import errors, images_body
from serving.gateway.rest.parameters import SegmentParameters, SliceParameters, read
from serving.gateway.rest.slice_fields import classified, segmented
from serving.gateway.rest.slices import overlaid
from serving.gateway.rest.uploads import Item, read_upload, require_count
from serving.status import error_fields
from slicewise.errors import InputError
from slicewise.inference.predictor import Prediction

MAX_CLASSIFIED, MAX_SEGMENTED = 100, 50
# Of one batch, so many images are under way at a time: the others' requests are to have their turn.
TOGETHER = 8
PATIENCE_S = 20.0

Outcome = Asked | InputError
Build = Callable[[Prediction, Any, Item], dict[str, Any]]


class BatchRoutes:
    """Many images in, one entry each out.

    Args:
        model: The gateway's model.
    """

    def __init__(self, model: SliceWiseModel) -> None:
        self._model = model

    def router(self) -> APIRouter:
        """Both of them."""
        router = APIRouter(tags=["batches"])
        failures = errors(400, 404, 408, 413, 415, 429, 500, 503, 504)
        router.add_api_route(
            "/classify/batch",
            self.classify,
            methods=["POST"],
            response_model=schemas.ClassifyBatch,
            responses=failures,
            openapi_extra=images_body(SliceParameters, MAX_CLASSIFIED),
        )
        router.add_api_route(
            "/segment/batch",
            self.segment,
            methods=["POST"],
            response_model=schemas.SegmentBatch,
            responses=failures,
            openapi_extra=images_body(SegmentParameters, MAX_SEGMENTED),
        )
        return router

    async def classify(self, request: Request) -> Response:
        """Class probabilities of up to 100 images."""
        clock = Clock()
        items, parameters = await _read(request, SliceParameters, MAX_CLASSIFIED)
        return await self._answer(
            request, clock, (items, parameters), "classify", schemas.ClassifyBatch, _class_entry
        )

    async def segment(self, request: Request) -> Response:
        """Class probabilities and masks of up to 50 images, which may differ in size."""
        clock = Clock()
        items, parameters = await _read(request, SegmentParameters, MAX_SEGMENTED)
        tasks = "classify,segment"
        return await self._answer(request, clock, (items, parameters), tasks, schemas.SegmentBatch, _segment_entry)

    async def _answer(
        self,
        request: Request,
        clock: Clock,
        given: tuple[Sequence[Item], SliceParameters],
        tasks: str,
        answer: type[schemas.Batch],
        build: Build,
    ) -> Response:
        items, parameters = given
        clock.mark("read")
        async with self._model.backend.lease(parameters.version) as backend:
            outcomes = await ask_all(backend, self._model.name, items, parameters, tasks)
        clock.mark("backend")
        entries = await asyncio.to_thread(_entries, items, outcomes, build)
        clock.mark("encode")
        failed = [entry["name"] for entry in entries if "error" in entry]
        told = request_id(request)
        fields = {"results": entries, "n_images": len(items), "n_failed": len(failed), "failed": failed}
        models = [outcome.model for outcome in outcomes if isinstance(outcome, Asked)]
        frame = {"model": models[0] if models else None, "request_id": told, "timings_ms": clock.milliseconds()}
        # Megabytes of masks: written beside the event loop.
        return await asyncio.to_thread(lambda: reply(answer.model_validate(fields | frame), told))


async def _read(request: Request, kind: type[SliceParameters], most: int) -> tuple[Sequence[Item], SliceParameters]:
    upload = await read_upload(request, many=True)
    require_count(upload.items, most)
    return upload.items, read(kind, upload.parameters)


async def ask_all(
    backend: Backend,
    name: str,
    items: Sequence[Item],
    parameters: SliceParameters,
    tasks: str,
    patience_s: float = PATIENCE_S,
) -> list[Outcome]:
    """Ask for every image: one that is bad is its error; a model server that is away fails the whole.

    Raises:
        BackendError: The model server did not answer one of them.
    """
    turns = asyncio.Semaphore(TOGETHER)

    async def one(item: Item) -> Outcome:
        async with turns:
            try:
                return await patiently(lambda: ask(backend, name, item, parameters, tasks), patience_s)
            except InputError as error:
                return error

    try:
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(one(item)) for item in items]
    except ExceptionGroup as errors_:
        raise errors_.exceptions[0] from errors_
    return [task.result() for task in asked]


def _entries(items: Sequence[Item], outcomes: Sequence[Outcome], build: Build) -> list[dict[str, Any]]:
    entries = []
    for index, (item, outcome) in enumerate(zip(items, outcomes, strict=True)):
        fields: dict[str, Any] = {"index": index, "name": item.label}
        entries.append(fields | _entry(outcome, build))
    return entries


def _entry(outcome: Outcome, build: Build) -> dict[str, Any]:
    if isinstance(outcome, InputError):
        return {"error": error_fields(outcome)}
    try:
        return build(outcome.prediction, outcome.parameters, outcome.item)
    except InputError as error:
        return {"error": error_fields(error)}


def _class_entry(prediction: Prediction, _: SliceParameters, __: Item) -> dict[str, Any]:
    return classified(prediction)


def _segment_entry(prediction: Prediction, parameters: SegmentParameters, item: Item) -> dict[str, Any]:
    return segmented(prediction, parameters, overlaid(parameters, item))
