"""Slices to the model server and back, one request each: the model server's own batching joins them again."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fastapi import Request, Response
from pydantic import BaseModel

from serving.codecs.images import decode_file
from serving.codecs.outputs import has_scores, output_names
from serving.codecs.tensors import Array
from serving.codecs.v2 import Message
from serving.codecs.v2_answer import read_predictions
from serving.gateway.backend import Backend
from serving.gateway.rest.parameters import SegmentParameters, SliceParameters
from serving.gateway.rest.schemas import ModelFields
from serving.gateway.rest.slice_files import is_telling, opened
from serving.gateway.rest.uploads import Item
from serving.status import BusyError
from slicewise.errors import InputError
from slicewise.inference.predictor import Prediction

T = TypeVar("T")
BUSY_PAUSE_S = 0.25
REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


@dataclass(frozen=True)
class Asked:
    """One slice's prediction and the model that made it.

    Attributes:
        item: The slice, read where its file tells more than pixels.
        parameters: The request's, with what the file told.
    """

    prediction: Prediction
    model: ModelFields
    item: Item
    parameters: Any


@dataclass
class Clock:
    """Times of a request's phases in the gateway."""

    start: float = field(default_factory=time.perf_counter)
    phases: dict[str, float] = field(default_factory=dict)
    _last: float = field(default_factory=time.perf_counter)

    def mark(self, phase: str) -> None:
        """The phase that ends now."""
        now = time.perf_counter()
        self.phases[phase] = now - self._last
        self._last = now

    def milliseconds(self, inside: Mapping[str, float] | None = None) -> dict[str, float]:
        """All phases, and those inside the model server."""
        own = self.phases | {"total": time.perf_counter() - self.start}
        return dict(inside or {}) | {name: round(1e3 * seconds, 3) for name, seconds in own.items()}


async def ask(backend: Backend, name: str, item: Item, parameters: SliceParameters, tasks: str) -> Asked:
    """Predict one slice.

    Args:
        backend: The model server.
        name: The model's served name.
        item: The slice.
        parameters: The request's.
        tasks: What to do.

    Raises:
        InputError: The slice is bad.
        BackendError: The model server did not answer.
    """
    if is_telling(item):
        item, parameters = await asyncio.to_thread(opened, item, parameters)
    tensors, sent = item.tensors(), parameters.for_model(tasks)
    # It is four times the size of everything else: the model server sends it only when it is named.
    extra = isinstance(parameters, SegmentParameters) and parameters.probability_map
    wanted = await _with_probability(backend, tasks) if extra else ()
    answer = await backend.infer(tensors, sent, wanted)
    outcome = read_predictions(answer)[0]
    if isinstance(outcome, InputError):
        raise outcome
    return Asked(outcome, model_of(answer, name), item, parameters)


async def patiently(call: Callable[[], Awaitable[T]], patience_s: float) -> T:
    """Ask again while the model server is busy: a job of many requests must not fail over one of them.

    Raises:
        BusyError: It still is after ``patience_s``.
    """
    until = time.monotonic() + patience_s
    while True:
        try:
            return await call()
        except BusyError:
            if time.monotonic() >= until:
                raise
            await asyncio.sleep(BUSY_PAUSE_S)


def model_of(answer: Message, name: str) -> ModelFields:
    """The model that gave an answer."""
    return ModelFields(name=name, version=answer.model_version, digest=str(answer.parameters["model_digest"]))


def plane_of(item: Item) -> Array:
    """The slice's first channel ``[H, W]``, to lay something over."""
    content = item.content
    if isinstance(content, InputError):
        raise content
    channels = decode_file(content, item.label) if isinstance(content, bytes) else content
    plane: Array = channels[0]
    return plane


def request_id(request: Request) -> str:
    """The caller's ``X-Request-ID`` if it is a decent one, else a new one."""
    given = request.headers.get("x-request-id", "")
    return given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def reply(answer: BaseModel, told_id: str, status: int = 200) -> Response:
    """An answer on the wire; what is not finite becomes null."""
    return Response(
        answer.model_dump_json(), status, headers={"x-request-id": told_id}, media_type="application/json"
    )


async def _with_probability(backend: Backend, tasks: str) -> tuple[str, ...]:
    scores = has_scores(await backend.describe())
    return output_names(tasks.split(","), scores=scores, segment=("mask", "region_probability"))
