"""The routes for one slice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from fastapi import APIRouter, Request, Response

from serving.codecs.tensors import Array
from serving.gateway.model import SliceWiseModel
from serving.gateway.rest import schemas_slices as schemas
from serving.gateway.rest.asking import Clock, ask, plane_of, reply, request_id
from serving.gateway.rest.openapi import errors, image_body
from serving.gateway.rest.parameters import (
    GradcamParameters,
    MultitaskParameters,
    SegmentParameters,
    SliceParameters,
    UncertaintyParameters,
    read,
)
from serving.gateway.rest.slice_fields import classified, explained, segmented, uncertain
from serving.gateway.rest.uploads import Item, only, read_upload
from serving.recommendation import recommend
from slicewise.inference.predictor import Prediction

Kind = TypeVar("Kind", bound=SliceParameters)
Fields = dict[str, Any]
Build = Callable[[Prediction, Kind, Item], Fields]


class SliceRoutes:
    """One image in, one prediction out.

    Args:
        model: The gateway's model.
    """

    def __init__(self, model: SliceWiseModel) -> None:
        self._model = model

    def router(self) -> APIRouter:
        """All of them."""
        router = APIRouter(tags=["one slice"])
        table: tuple[tuple[str, Any, type[schemas.Single], type[SliceParameters]], ...] = (
            ("/classify", self.classify, schemas.ClassifyAnswer, SliceParameters),
            ("/classify/gradcam", self.gradcam, schemas.GradcamAnswer, GradcamParameters),
            ("/segment", self.segment, schemas.SegmentAnswer, SegmentParameters),
            ("/segment/uncertainty", self.uncertainty, schemas.UncertaintyAnswer, UncertaintyParameters),
            ("/predict_multitask", self.multitask, schemas.MultitaskAnswer, MultitaskParameters),
        )
        for path, endpoint, answer, kind in table:
            router.add_api_route(
                path,
                endpoint,
                methods=["POST"],
                response_model=answer,
                responses=errors(400, 404, 408, 413, 415, 429, 500, 503, 504),
                openapi_extra=image_body(kind),
            )
        return router

    async def classify(self, request: Request) -> Response:
        """Calibrated class probabilities of one slice."""
        return await self._answer(request, SliceParameters, "classify", schemas.ClassifyAnswer, _classified)

    async def gradcam(self, request: Request) -> Response:
        """Class probabilities of one slice, and where the evidence for tumour lies."""
        return await self._answer(request, GradcamParameters, "classify,explain", schemas.GradcamAnswer, _explained)

    async def segment(self, request: Request) -> Response:
        """Class probabilities and masks of one slice."""
        return await self._answer(request, SegmentParameters, "classify,segment", schemas.SegmentAnswer, _segmented)

    async def uncertainty(self, request: Request) -> Response:
        """Masks of one slice, and how uncertain they are, by Monte-Carlo dropout."""
        tasks = "classify,segment,uncertainty"
        return await self._answer(request, UncertaintyParameters, tasks, schemas.UncertaintyAnswer, _uncertain)

    async def multitask(self, request: Request) -> Response:
        """Classify one slice, segment it if it shows tumour, and say what a reader may do next."""
        return await self._answer(
            request, MultitaskParameters, "classify,segment", schemas.MultitaskAnswer, _multitask
        )

    async def _answer(
        self, request: Request, kind: type[Kind], tasks: str, answer: type[schemas.Single], build: Build[Kind]
    ) -> Response:
        clock = Clock()
        upload = await read_upload(request)
        parameters = read(kind, upload.parameters)
        item = only(upload.items)
        clock.mark("read")
        async with self._model.backend.lease(parameters.version) as backend:
            asked = await ask(backend, self._model.name, item, parameters, tasks)
        clock.mark("backend")
        made = (asked.prediction, asked.parameters, asked.item)
        # Without pictures to encode, the way to another thread takes longer than the work.
        fields = build(*made) if kind is SliceParameters else await asyncio.to_thread(build, *made)
        clock.mark("encode")
        told = request_id(request)
        frame = {"model": asked.model, "request_id": told}
        frame["timings_ms"] = clock.milliseconds(asked.prediction.timings_ms)
        return reply(answer.model_validate(fields | frame), told)


def overlaid(parameters: SegmentParameters, item: Item) -> Array | None:
    """The plane to draw on, where an overlay is wanted."""
    return plane_of(item) if parameters.overlay else None


def _classified(prediction: Prediction, _: SliceParameters, __: Item) -> Fields:
    return classified(prediction)


def _explained(prediction: Prediction, parameters: GradcamParameters, item: Item) -> Fields:
    return explained(prediction, parameters, plane_of(item))


def _segmented(prediction: Prediction, parameters: SegmentParameters, item: Item) -> Fields:
    return segmented(prediction, parameters, overlaid(parameters, item))


def _uncertain(prediction: Prediction, parameters: UncertaintyParameters, item: Item) -> Fields:
    return uncertain(prediction, parameters, overlaid(parameters, item))


def _multitask(prediction: Prediction, parameters: MultitaskParameters, item: Item) -> Fields:
    return segmented(prediction, parameters, overlaid(parameters, item)) | {
        "conditional": parameters.conditional,
        "segmented": prediction.decoded,
        "recommendation": recommend(prediction.decision, prediction.ood_flag),
    }
