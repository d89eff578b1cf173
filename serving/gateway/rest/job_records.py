"""What is known of one job, and how it is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from serving.gateway.rest.parameters import StudyParameters
from serving.gateway.rest.schemas import ErrorFields
from serving.gateway.rest.schemas_studies import JobAnswer, JobState, Progress
from serving.gateway.rest.study_files import StoredFile

RESULT, MASK, SEG = "result.json", "mask.nii.gz", "seg.dcm"
LINKS = {"result": "result", "mask": MASK, "seg": SEG}


class JobDeleted(Exception):
    """The caller deleted the job while it ran."""


@dataclass
class Job:
    """One study to be analysed in the background.

    Attributes:
        id: Not to be guessed.
        request_id: Of the request that made it.
        parameters: Of that request.
        inputs: Folder of the files; gone once they have been read and predicted.
        outputs: Folder of the results.
        files: The files.
        no_seg: Why there is no DICOM-SEG; empty where there is one.
    """

    id: str
    request_id: str
    parameters: StudyParameters
    inputs: Path
    outputs: Path
    files: Sequence[StoredFile]
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    state: JobState = "queued"
    done: int = 0
    total: int | None = None
    finished: datetime | None = None
    error: ErrorFields | None = None
    no_seg: str = ""
    deleted: bool = False
    n_bytes: int = 0
    n_input_bytes: int = 0

    def __post_init__(self) -> None:
        """Weigh the files."""
        self.n_input_bytes = sum(file.path.stat().st_size for file in self.files)

    def on_progress(self, done: int, total: int) -> None:
        """Take note, and stop a job that nobody waits for any more.

        Raises:
            JobDeleted: It was deleted.
        """
        if self.deleted:
            raise JobDeleted
        self.done, self.total = done, total

    def finish(self, state: JobState, error: ErrorFields | None = None) -> None:
        """Nothing more will happen to it."""
        self.state, self.error, self.finished = state, error, datetime.now(UTC)
        there = [path for path in self.outputs.iterdir() if path.is_file()] if self.outputs.is_dir() else []
        self.n_bytes = sum(path.stat().st_size for path in there)

    def tell(self, max_age_s: float) -> JobAnswer:
        """The job as an answer."""
        files = {}
        if self.state == "done":
            files = {
                what: f"/jobs/{self.id}/{name}" for what, name in LINKS.items() if what != "seg" or not self.no_seg
            }
        return JobAnswer(
            job_id=self.id,
            state=self.state,
            progress=Progress(slices_done=self.done, slices=self.total),
            created=self.created,
            expires=self.finished + timedelta(seconds=max_age_s) if self.finished else None,
            error=self.error,
            files=files,
        )
