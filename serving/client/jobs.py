"""Waiting for a job: what its state means, and when to look again."""

from __future__ import annotations

import time
from collections.abc import Callable

from serving.gateway.rest.schemas_studies import JobAnswer
from serving.status import DeadlineError, JobStateError

# The names of a job's files in its address.
MASK, SEG = "mask.nii.gz", "seg.dcm"


class Watch:
    """One wait.

    Args:
        timeout_s: How long, in all.
        poll_s: Between two looks.
        on_progress: Told what each look saw.
    """

    def __init__(self, timeout_s: float, poll_s: float, on_progress: Callable[[JobAnswer], None] | None) -> None:
        self._timeout_s = timeout_s
        self._until = time.monotonic() + timeout_s
        self._poll_s = poll_s
        self._on_progress = on_progress

    def pause_s(self, job: JobAnswer) -> float | None:
        """How long until the next look; None when the job is done.

        Raises:
            JobStateError: It failed.
            DeadlineError: There is no time left.
        """
        if self._on_progress:
            self._on_progress(job)
        if job.state == "done":
            return None
        if job.state == "failed":
            reason, cure = (job.error.message, job.error.cure) if job.error else ("no reason is told", "")
            raise JobStateError(f"the job failed: {reason}", cure)
        if time.monotonic() + self._poll_s > self._until:
            raise DeadlineError(f"the job is {job.state} after {self._timeout_s:g} s", "wait again: it goes on")
        return self._poll_s
