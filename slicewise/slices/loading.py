"""Batches made ready ahead of the training loop, by one thread beside it.

Reading a memory map and most tensor operations release Python's lock, so a thread is enough: no second process,
no copy through shared memory.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")

AHEAD = 2
THREAD_NAME = "slicewise-loading"


class Ready(Generic[T]):
    """The results of some jobs, in the jobs' order; made by ``ready_ahead``.

    Attributes:
        waited: Seconds for which the reader has stood still so far.
    """

    def __init__(self, jobs: Iterable[Callable[[], T]], pool: ThreadPoolExecutor | None, ahead: int) -> None:
        self.waited = 0.0
        self._jobs = iter(jobs)
        self._pool = pool
        self._ahead = ahead
        self._pending: deque[Callable[[], T]] = deque()
        self._fill()

    def _fill(self) -> None:
        while len(self._pending) < self._ahead and (job := next(self._jobs, None)) is not None:
            self._pending.append(job if self._pool is None else self._pool.submit(job).result)

    def __iter__(self) -> Iterator[T]:
        while self._pending:
            start = time.perf_counter()
            result = self._pending.popleft()()
            self.waited += time.perf_counter() - start
            self._fill()  # before the reader gets to work, so that the thread does too
            yield result


@contextmanager
def ready_ahead(jobs: Iterable[Callable[[], T]], ahead: int = AHEAD) -> Iterator[Ready[T]]:
    """Run jobs one after the other in a thread, ``ahead`` of them before their result is taken.

    An exception of a job is raised where its result would have come. Leaving the block, in whatever way, ends the
    thread: jobs not begun are dropped, the one at work is waited for.

    Args:
        jobs: Called in order; none may depend on what the reader does meanwhile.
        ahead: Results kept ready, and so the bound on memory; 0 runs each job only when its result is asked for,
            without a thread.
    """
    if ahead < 1:
        yield Ready(jobs, None, 1)
        return
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix=THREAD_NAME)
    try:
        yield Ready(jobs, pool, ahead)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
