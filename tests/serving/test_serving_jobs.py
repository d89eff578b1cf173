"""Jobs and their folders inside one process: the store's limits, deletion, and what is left behind."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from uploaded_study import UploadedStudy, make_upload

from serving.gateway.inprocess import InProcessBackend
from serving.gateway.model import SliceWiseModel
from serving.gateway.rest.job_records import MASK, RESULT, Job
from serving.gateway.rest.jobs import JobLimits, JobStore
from serving.gateway.rest.parameters import StudyParameters
from serving.gateway.rest.study_files import StoredFile
from serving.gateway.rest.study_run import StudyLimits, StudyRunner
from serving.gateway.rest.workplace import Workplace
from serving.status import BusyError, UnknownJobError
from serving.torchserve.jobs import Served
from slicewise.config import ServeConfig
from slicewise.inference.predictor import Predictor

DEADLINE_S = 60.0


@pytest.fixture(scope="module")
def upload(tmp_path_factory: pytest.TempPathFactory) -> UploadedStudy:
    return make_upload(tmp_path_factory.mktemp("upload"))


class Desk:
    """A store with one real model, and the folder that its files lie in."""

    def __init__(self, store: JobStore, workplace: Workplace, upload: UploadedStudy) -> None:
        self.store = store
        self.workplace = workplace
        self.root = workplace.new_folder().parent
        self._upload = upload

    def submit(self, *, broken: bool = False) -> Job:
        folder = self.workplace.new_folder()
        path = folder / "x_flair.nii.gz"
        shutil.copy(self._upload.nifti["flair"], path)
        if broken:
            path.write_bytes(path.read_bytes()[:500])
        files = (StoredFile("flair", path, "nifti"),)
        return self.store.submit(files, folder, StudyParameters(), "r")

    def folders(self) -> set[Path]:
        return {path for path in self.root.iterdir() if any(path.iterdir())}


@pytest.fixture
def run(predictor: Predictor, upload: UploadedStudy) -> Callable[..., None]:
    """Runs a story with a store of the given limits, and sees that nothing is left of it."""

    def tell(story: Callable[[Desk], Awaitable[None]], limits: JobLimits) -> None:
        asyncio.run(_tell(story, limits, predictor, upload))

    return tell


async def _tell(
    story: Callable[[Desk], Awaitable[None]], limits: JobLimits, predictor: Predictor, upload: UploadedStudy
) -> None:
    async with _desk(limits, predictor, upload) as desk:
        await asyncio.wait_for(story(desk), DEADLINE_S)
    assert not desk.root.exists()


@asynccontextmanager
async def _desk(limits: JobLimits, predictor: Predictor, upload: UploadedStudy) -> AsyncIterator[Desk]:
    backend = InProcessBackend(predictor, Served(predictor.bundle, "slicewise"), ServeConfig())
    runner = StudyRunner(SliceWiseModel("slicewise", backend), StudyLimits.of(64))
    workplace = Workplace()
    workplace.open()
    store = JobStore(runner, workplace, limits)
    store.start()
    try:
        yield Desk(store, workplace, upload)
    finally:
        await store.stop()
        await workplace.close()
        await backend.close()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


async def finished(job: Job) -> None:
    await until(lambda: job.finished is not None)


def test_a_jobs_files_go_when_they_are_read(run: Callable[..., None]) -> None:
    async def story(desk: Desk) -> None:
        job = desk.submit()
        await finished(job)
        await until(lambda: not job.inputs.exists())
        assert job.state == "done"
        assert {path.name for path in job.outputs.iterdir()} == {RESULT, MASK}
        assert job.n_bytes > 0
        assert oct(desk.root.stat().st_mode & 0o777) == "0o700"
        await desk.store.delete(job.id)
        assert desk.folders() == set()

    run(story, JobLimits())


def test_a_failed_job_leaves_the_worker_at_work(run: Callable[..., None]) -> None:
    async def story(desk: Desk) -> None:
        bad, good = desk.submit(broken=True), desk.submit()
        await finished(bad)
        await finished(good)
        assert (bad.state, good.state) == ("failed", "done")
        assert bad.error is not None
        assert str(desk.root) not in bad.error.message
        assert bad.error.message.startswith("x_flair.nii.gz")

    run(story, JobLimits())


def test_results_grow_old(run: Callable[..., None]) -> None:
    async def story(desk: Desk) -> None:
        job = desk.submit()
        await finished(job)
        await until(lambda: not job.outputs.exists())
        with pytest.raises(UnknownJobError):
            await desk.store.find(job.id)

    run(story, JobLimits(max_age_s=0.0))


@pytest.mark.parametrize("limits", [JobLimits(kept=1), JobLimits(max_bytes=20_000)])
def test_the_oldest_results_make_room(limits: JobLimits, run: Callable[..., None]) -> None:
    async def story(desk: Desk) -> None:
        jobs = [desk.submit() for _ in range(3)]
        for job in jobs:
            await finished(job)
        sizes = [job.n_bytes for job in jobs]
        await desk.store.sweep()
        # The worker sweeps too, and may be at it still.
        await until(lambda: _fits([job for job in jobs if job.outputs.exists()], limits))
        there = [job.outputs.exists() for job in jobs]
        assert there == sorted(there)
        kept = [size for size, is_there in zip(sizes, there, strict=True) if is_there]
        assert len(kept) == limits.kept or sum(kept) + max(sizes) > limits.max_bytes

    run(story, limits)


def _fits(jobs: list[Job], limits: JobLimits) -> bool:
    return len(jobs) <= limits.kept and sum(job.n_bytes for job in jobs) <= limits.max_bytes


def test_the_queue_is_bounded(run: Callable[..., None]) -> None:
    async def story(desk: Desk) -> None:
        first = desk.submit()
        await until(lambda: first.state == "running")
        waiting = [desk.submit(), desk.submit()]
        with pytest.raises(BusyError, match="2 jobs wait"):
            desk.submit()
        for job in waiting:
            await desk.store.delete(job.id)
            assert not job.inputs.exists()
        assert desk.submit().state == "queued"
        await finished(first)
        assert first.state == "done"

    run(story, JobLimits(queued=2))


def test_a_running_job_that_is_deleted_ends(run: Callable[..., None]) -> None:
    async def story(desk: Desk) -> None:
        job = desk.submit()
        await until(lambda: job.state == "running")
        await desk.store.delete(job.id)
        await until(lambda: not job.outputs.exists())
        assert job.finished is None
        after = desk.submit()
        await finished(after)
        assert after.state == "done"

    run(story, JobLimits())


def test_stopping_does_not_wait_for_the_queue(run: Callable[..., None]) -> None:
    async def story(desk: Desk) -> None:
        jobs = [desk.submit() for _ in range(4)]
        await until(lambda: jobs[0].state == "running")
        await desk.store.stop()
        assert jobs[3].state == "queued"

    run(story, JobLimits())


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_has_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left, young = tmp_path / "slicewise-uploads-left", tmp_path / "slicewise-uploads-young"
    for folder in (left, young):
        (folder / "scan").mkdir(parents=True)
    living = Workplace()
    living.open()
    kept = living.new_folder()
    for folder in (left, kept.parent):
        os.utime(folder, (0, 0))
    starting = Workplace()
    starting.open()
    assert not left.exists()
    assert young.exists()
    assert kept.exists()
    for workplace in (living, starting):
        asyncio.run(workplace.close())
    assert list(tmp_path.iterdir()) == [young]
