"""Studies in the background: a bounded queue, one worker, and results that do not stay for ever."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from serving.gateway.rest.asking import Clock
from serving.gateway.rest.job_records import Job, JobDeleted
from serving.gateway.rest.job_results import write_results
from serving.gateway.rest.parameters import StudyParameters
from serving.gateway.rest.schemas import ErrorFields
from serving.gateway.rest.study_files import StoredFile
from serving.gateway.rest.study_run import StudyRunner
from serving.gateway.rest.workplace import Workplace, remove
from serving.status import BusyError, UnknownJobError, error_fields
from slicewise.errors import SliceWiseError

ID_BYTES = 24
# A job has time: it waits for a busy model server rather than failing.
PATIENCE_S = 120.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class JobLimits:
    """How much is kept.

    Attributes:
        queued: Jobs that wait, at most.
        max_age_s: How long a result is kept.
        max_bytes: Of all results together; the oldest go first.
        kept: Finished jobs, at most.
        max_input_bytes: Of the files of all jobs that wait or run.
    """

    queued: int = 8
    max_age_s: float = 3600.0
    max_bytes: int = 256 << 20
    kept: int = 256
    max_input_bytes: int = 512 << 20


class JobStore:
    """All jobs of this process.

    Args:
        runner: Reads and predicts studies.
        workplace: Where files and results lie.
        limits: How much is kept.
    """

    def __init__(self, runner: StudyRunner, workplace: Workplace, limits: JobLimits | None = None) -> None:
        self.limits = limits or JobLimits()
        self._runner = runner
        self._workplace = workplace
        self._jobs: dict[str, Job] = {}
        self._queue: asyncio.Queue[Job] = asyncio.Queue()
        self._worker: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the worker; call it in the event loop."""
        self._worker = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """Stop the worker; the job it is at is not finished."""
        for job in self._jobs.values():
            job.deleted = True
        if self._worker is not None:
            self._worker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._worker

    def require_room(self) -> None:
        """Refuse a job before its files are stored.

        Raises:
            BusyError: The queue is full.
        """
        # Counted by the jobs, not by the queue: a deleted one is still in it and takes nobody's place.
        if sum(job.state == "queued" for job in self._jobs.values()) >= self.limits.queued:
            raise BusyError(f"{self.limits.queued} jobs wait already", "try again when one of them is done")
        if sum(job.n_input_bytes for job in self._jobs.values() if not job.finished) > self.limits.max_input_bytes:
            raise BusyError("the jobs that wait hold too much data", "try again when one of them is done")

    def submit(self, files: Sequence[StoredFile], inputs: Path, parameters: StudyParameters, request_id: str) -> Job:
        """Queue a job; its folder is the store's from now on.

        Raises:
            BusyError: The queue is full.
        """
        self.require_room()
        job = Job(
            secrets.token_urlsafe(ID_BYTES), request_id, parameters, inputs, self._workplace.new_folder(), files
        )
        self._jobs[job.id] = job
        self._queue.put_nowait(job)
        return job

    async def find(self, job_id: str) -> Job:
        """A job by its id.

        Raises:
            UnknownJobError: Never there, deleted, or too old.
        """
        await self.sweep()
        job = self._jobs.get(job_id)
        if job is None:
            raise UnknownJobError("there is no such job", "results are kept for a limited time: send the study again")
        return job

    async def delete(self, job_id: str) -> None:
        """Forget a job; one that runs is stopped at its next slices.

        Raises:
            UnknownJobError: It is not there.
        """
        job = await self.find(job_id)
        await self._forget(job)

    async def sweep(self) -> None:
        """Throw away what is too old or too much, the oldest first."""
        finished = sorted((job for job in self._jobs.values() if job.finished), key=_finish_time)
        oldest = datetime.now(UTC) - timedelta(seconds=self.limits.max_age_s)
        held = sum(job.n_bytes for job in finished)
        for number, job in enumerate(finished):
            crowded = held > self.limits.max_bytes or len(finished) - number > self.limits.kept
            if not crowded and _finish_time(job) >= oldest:
                break
            held -= job.n_bytes
            await self._forget(job)

    async def _forget(self, job: Job) -> None:
        self._jobs.pop(job.id, None)
        job.deleted = True
        if job.state != "running":
            await self._clear(job)

    async def _work(self) -> None:
        while True:
            job = await self._queue.get()
            if job.deleted:
                continue
            job.state = "running"
            await self._run(job)
            await self._sweep_after(job)

    async def _sweep_after(self, job: Job) -> None:
        if job.deleted:
            await self._clear(job)
        await self.sweep()

    async def _run(self, job: Job) -> None:
        """A job's failure is the job's: the worker goes on."""
        clock = Clock()
        try:
            result = await self._runner.run(job.files, job.inputs, job.parameters, clock, job.on_progress, PATIENCE_S)
            await asyncio.to_thread(write_results, job, result, clock)
            job.finish("done")
        except JobDeleted:
            log.info("a job was deleted while it ran")
        except SliceWiseError as error:
            log.info("a job failed: %s", type(error).__name__)
            job.finish("failed", ErrorFields(**error_fields(error)))
        except Exception as error:  # whatever it is, the next job must have its turn
            log.exception("a job failed")
            job.finish("failed", ErrorFields(**error_fields(error)))
        finally:
            await remove(job.inputs)

    async def _clear(self, job: Job) -> None:
        await remove(job.inputs)
        await remove(job.outputs)


def _finish_time(job: Job) -> datetime:
    return job.finished or job.created
