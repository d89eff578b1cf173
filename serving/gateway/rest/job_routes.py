"""The routes of studies in the background: ask, look, fetch, delete."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response

from serving.gateway.rest.asking import reply, request_id
from serving.gateway.rest.job_records import MASK, RESULT, SEG, Job
from serving.gateway.rest.jobs import JobStore
from serving.gateway.rest.openapi import errors, study_body
from serving.gateway.rest.parameters import StudyParameters, read
from serving.gateway.rest.schemas_studies import JobAnswer, StudyAnswer
from serving.gateway.rest.study_files import StoredFile, store_items
from serving.gateway.rest.study_run import StudyRunner
from serving.gateway.rest.uploads import read_upload
from serving.gateway.rest.workplace import Workplace, remove
from serving.gateway.version_choice import CHOSEN
from serving.status import JobStateError, UnsuitableError

NIFTI_TYPE, DICOM_TYPE = "application/gzip", "application/dicom"


class JobRoutes:
    """Jobs.

    Args:
        jobs: The store.
        runner: For the limits of uploads.
        workplace: Where uploads lie.
    """

    def __init__(self, jobs: JobStore, runner: StudyRunner, workplace: Workplace) -> None:
        self._jobs = jobs
        self._limits = runner.limits
        self._workplace = workplace

    def router(self) -> APIRouter:
        """All of them."""
        router = APIRouter(tags=["jobs"])
        add, gone = router.add_api_route, errors(404, 500)
        add(
            "/predict/async",
            self.submit,
            methods=["POST"],
            status_code=202,
            response_model=JobAnswer,
            responses=errors(400, 404, 408, 413, 415, 429, 500, 503, 504),
            openapi_extra=study_body(StudyParameters, self._limits.archive.files),
        )
        add("/jobs/{job_id}", self.look, methods=["GET"], response_model=JobAnswer, responses=gone)
        add("/jobs/{job_id}", self.delete, methods=["DELETE"], status_code=204, responses=gone)
        self._add_downloads(router)
        return router

    def _add_downloads(self, router: APIRouter) -> None:
        fetch = errors(404, 409, 500)
        router.add_api_route(
            "/jobs/{job_id}/result", self.result, methods=["GET"], response_model=StudyAnswer, responses=fetch
        )
        for name, endpoint, kind in ((MASK, self.mask, NIFTI_TYPE), (SEG, self.seg, DICOM_TYPE)):
            there: dict[int | str, Any] = {
                200: {"content": {kind: {"schema": {"type": "string", "format": "binary"}}}}
            }
            router.add_api_route(
                f"/jobs/{{job_id}}/{name}",
                endpoint,
                methods=["GET"],
                response_class=Response,
                responses={**there, **fetch, **(errors(422) if name == SEG else {})},
            )

    async def submit(self, request: Request) -> Response:
        """Queue a study; the answer says where to look for it."""
        self._jobs.require_room()
        folder = self._workplace.new_folder()
        try:
            upload = await read_upload(request, many=True)
            parameters = await _pinned(read(StudyParameters, upload.parameters))
            files: tuple[StoredFile, ...] = await asyncio.to_thread(
                store_items, upload.items, folder, self._limits.archive
            )
            told = request_id(request)
            job = self._jobs.submit(files, folder, parameters, told)
        except BaseException:
            await remove(folder)
            raise
        response = reply(job.tell(self._jobs.limits.max_age_s), told, 202)
        response.headers["location"] = f"/jobs/{job.id}"
        return response

    async def look(self, job_id: str, request: Request) -> Response:
        """The job's state and progress."""
        job = await self._jobs.find(job_id)
        return reply(job.tell(self._jobs.limits.max_age_s), request_id(request))

    async def delete(self, job_id: str) -> Response:
        """Forget the job, its files and its result."""
        await self._jobs.delete(job_id)
        return Response(status_code=204)

    async def result(self, job_id: str) -> Response:
        """The answer, as ``/patient/analyze_stack`` gives it."""
        job = await self._finished(job_id)
        return await _send(job.outputs / RESULT, "application/json")

    async def mask(self, job_id: str) -> Response:
        """The mask as NIfTI in the input's geometry: 1 necrosis, 2 oedema, 4 enhancing tumour."""
        job = await self._finished(job_id)
        return await _send(job.outputs / MASK, NIFTI_TYPE, MASK)

    async def seg(self, job_id: str) -> Response:
        """The masks as a DICOM Segmentation object, where the input was DICOM."""
        job = await self._finished(job_id)
        if job.no_seg:
            raise UnsuitableError(f"there is no {SEG}: {job.no_seg}", f"fetch {MASK} instead")
        return await _send(job.outputs / SEG, DICOM_TYPE, SEG)

    async def _finished(self, job_id: str) -> Job:
        job = await self._jobs.find(job_id)
        if job.state == "failed" and job.error is not None:
            raise JobStateError(f"the job failed: {job.error.message}", job.error.cure)
        if job.state != "done":
            raise JobStateError(f"the job is {job.state}", "look at its state, and fetch the result once it is done")
        return job


async def _pinned(parameters: StudyParameters) -> StudyParameters:
    """The version that the request's query or header chose: the worker knows nothing of the request any more."""
    backend = CHOSEN.get()
    if backend is None:
        return parameters
    return parameters.model_copy(update={"version": str((await backend.describe())["version"])})


async def _send(path: Path, kind: str, name: str = "") -> Response:
    content = await asyncio.to_thread(path.read_bytes)
    headers = {"content-disposition": f'attachment; filename="{name}"'} if name else {}
    return Response(content, media_type=kind, headers=headers)
