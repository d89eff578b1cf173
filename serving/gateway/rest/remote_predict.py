"""Slices of a study to the model server, called from a thread: what ``predict_study`` needs as its ``predict``."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np

from serving.codecs.v2_answer import read_predictions
from serving.gateway.backend import Backend
from serving.gateway.rest.asking import model_of, patiently
from serving.gateway.rest.schemas import ModelFields
from slicewise.errors import InputError
from slicewise.inference.predictor import Prediction, PredictOptions, SliceInput

Outcomes = list[Prediction | InputError]


class RemotePredict:
    """Predicts batches of equally large slices over a backend.

    Args:
        backend: A leased backend, so that one model answers all.
        name: The model's served name.
        max_bytes: Of one request.
        wanted: Outputs to ask for.
        patience_s: How long to wait for a busy model server before giving up.
    """

    def __init__(
        self, backend: Backend, name: str, max_bytes: int, wanted: tuple[str, ...], patience_s: float
    ) -> None:
        self._backend = backend
        self._name = name
        self._max_bytes = max_bytes
        self._wanted = wanted
        self._patience_s = patience_s
        self._loop = asyncio.get_running_loop()
        self.model: ModelFields | None = None

    def __call__(self, items: Sequence[SliceInput], options: PredictOptions) -> Outcomes:
        """One outcome for each item; blocks, so call it from a thread other than the event loop's."""
        size = max(1, self._max_bytes // max(1, items[0].image.nbytes))
        outcomes: Outcomes = []
        for start in range(0, len(items), size):
            asked = self._ask(items[start : start + size], options)
            outcomes += asyncio.run_coroutine_threadsafe(asked, self._loop).result()
        return outcomes

    async def _ask(self, items: Sequence[SliceInput], options: PredictOptions) -> Outcomes:
        return await patiently(lambda: self._infer(items, options), self._patience_s)

    async def _infer(self, items: Sequence[SliceInput], options: PredictOptions) -> Outcomes:
        images = np.stack([item.image for item in items])
        try:
            answer = await self._backend.infer({"image": images}, _parameters(items[0], options), self._wanted)
        except InputError as error:
            # A request in which no slice is good fails as a whole, with the first one's error.
            return [error] * len(items)
        self.model = model_of(answer, self._name)
        return read_predictions(answer)


def _parameters(item: SliceInput, options: PredictOptions) -> dict[str, Any]:
    given: dict[str, Any] = {
        "tasks": ",".join(options.tasks),
        "modalities": ",".join(item.modalities),
        "pixel_mm": ",".join(map(str, item.pixel_mm)),
        "conditional": options.conditional,
    }
    return given if options.threshold is None else given | {"threshold": options.threshold}
