"""The Predictor in the gateway's own process: TorchServe's handler without TorchServe."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http import HTTPStatus

import orjson
from multidict import CIMultiDict

from serving.gateway.backend import RawAnswer
from serving.gateway.model_metrics import observe
from serving.gateway.torchserve_http import deadline_passed
from serving.gateway.wire_backend import WireBackend
from serving.status import error_from
from serving.torchserve.batch import answer
from serving.torchserve.figures import BatchFigures
from serving.torchserve.jobs import Reply, Served
from slicewise.config import ServeConfig
from slicewise.inference.predictor import Predictor

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Request:
    body: bytes
    headers: Mapping[str, str]
    reply: asyncio.Future[Reply] = field(repr=False)


class InProcessBackend(WireBackend):
    """A loaded model with dynamic batches of its own, in one thread beside the event loop.

    Args:
        predictor: The model, warmed up.
        served: Its bundle as it is served.
        config: Batch size and limits.
    """

    def __init__(self, predictor: Predictor, served: Served, config: ServeConfig) -> None:
        super().__init__(config)
        self._predictor = predictor
        self._served = served
        self._queue: asyncio.Queue[_Request] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="predictor")
        self._pump: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Stop taking batches; one that is being computed ends by itself."""
        if self._pump is not None:
            self._pump.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._pump
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _send(self, body: bytes, headers: Mapping[str, str], deadline_s: float) -> RawAnswer:
        if self._pump is None:
            self._pump = asyncio.create_task(self._work())
        lower = {name.lower(): value for name, value in headers.items()}
        request = _Request(body, lower, asyncio.get_running_loop().create_future())
        self._queue.put_nowait(request)
        try:
            async with asyncio.timeout(deadline_s):
                reply = await request.reply
        except TimeoutError as error:
            raise deadline_passed(deadline_s) from error
        if reply.status != HTTPStatus.OK:
            raise error_from(orjson.loads(reply.body).get("error"))
        return RawAnswer(reply.body, CIMultiDict({"content-type": reply.content_type, **reply.headers}))

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            # Whoever gave up waiting is not worth a network pass.
            batch = [request for request in await self._collect() if not request.reply.done()]
            if not batch:
                continue
            try:
                replies = await loop.run_in_executor(self._thread, self._answer, batch)
            except Exception as error:
                log.exception("a batch of %d requests failed", len(batch))
                self._fail(batch, error)
                continue
            for request, reply in zip(batch, replies, strict=True):
                if not request.reply.done():
                    request.reply.set_result(reply)

    async def _collect(self) -> list[_Request]:
        """One batch of what waits already: the next one gathers while it is computed."""
        batch = [await self._queue.get()]
        await asyncio.sleep(0)  # whoever came in the same moment is let in
        while len(batch) < self.config.batch_size and not self._queue.empty():
            batch.append(self._queue.get_nowait())
        return batch

    def _answer(self, batch: list[_Request]) -> list[Reply]:
        figures = BatchFigures()
        replies = answer([(item.body, item.headers) for item in batch], self._predictor, self._served, figures)
        observe(self._served.name, figures)
        return replies

    @staticmethod
    def _fail(batch: list[_Request], error: Exception) -> None:
        for request in batch:
            if not request.reply.done():
                request.reply.set_exception(error)
