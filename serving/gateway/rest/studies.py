"""The route for a whole study whose caller waits for the answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, Request, Response

from serving.gateway.rest.asking import Clock, reply, request_id
from serving.gateway.rest.openapi import errors, study_body
from serving.gateway.rest.parameters import StudyParameters, read
from serving.gateway.rest.schemas_studies import StudyAnswer
from serving.gateway.rest.study_fields import study_fields
from serving.gateway.rest.study_files import store_items
from serving.gateway.rest.study_run import StudyRunner
from serving.gateway.rest.uploads import read_upload
from serving.gateway.rest.workplace import Workplace
from serving.status import BusyError

# A study fills memory and the model server: so many at once, and so many that wait.
TOGETHER, WAITING = 2, 8
PATIENCE_S = 20.0


class StudyRoutes:
    """Studies, answered at once.

    Args:
        runner: Reads and predicts.
        workplace: Where uploads lie meanwhile.
    """

    def __init__(self, runner: StudyRunner, workplace: Workplace) -> None:
        self._runner = runner
        self._workplace = workplace
        self._turns = asyncio.Semaphore(TOGETHER)
        self._waiting = 0

    def router(self) -> APIRouter:
        """It."""
        router = APIRouter(tags=["whole studies"])
        router.add_api_route(
            "/patient/analyze_stack",
            self.analyze,
            methods=["POST"],
            response_model=StudyAnswer,
            responses=errors(400, 404, 408, 413, 415, 429, 500, 503, 504),
            openapi_extra=study_body(StudyParameters, self._runner.limits.archive.files),
        )
        return router

    async def analyze(self, request: Request) -> Response:
        """Analyse a study: NIfTI per modality, DICOM, a zip, or a stack of pictures."""
        clock = Clock()
        async with self._turn(), self._workplace.folder() as folder:
            upload = await read_upload(request, many=True)
            parameters = read(StudyParameters, upload.parameters)
            files = await asyncio.to_thread(store_items, upload.items, folder, self._runner.limits.archive)
            del upload
            clock.mark("read")
            result = await self._runner.run(files, folder, parameters, clock, patience_s=PATIENCE_S)
        fields = await asyncio.to_thread(study_fields, result, parameters.mask_format)
        clock.mark("encode")
        told = request_id(request)
        frame = {"request_id": told, "timings_ms": clock.milliseconds(result.prediction.timings_ms)}
        # The mask may have megabytes: written beside the event loop.
        return await asyncio.to_thread(lambda: reply(StudyAnswer.model_validate(fields | frame), told))

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        if self._waiting >= WAITING:
            raise BusyError(f"{WAITING} studies wait already", "try again in a moment, or use /predict/async")
        self._waiting += 1
        try:
            await self._turns.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._turns.release()
