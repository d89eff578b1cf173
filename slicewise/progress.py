"""Progress of long work: a bar on a terminal, plain lines in a pod's log."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

logger = logging.getLogger("slicewise.progress")
# ``update(done, total, text)``
Update = Callable[[int, int, str], None]
LINE_EVERY_S = 5.0


@contextmanager
def progress(name: str) -> Iterator[Update]:
    """Yield a function that shows how far the work called ``name`` has come."""
    if not sys.stderr.isatty():
        yield _lines(name)
        return
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(name, total=None, text="")

        def update(done: int, total: int, text: str) -> None:
            bars.update(task, completed=done, total=total, text=text)

        yield update


def _lines(name: str) -> Update:
    """One line at the start, at the end, and every few seconds between."""
    last, shown = 0.0, -1

    def update(done: int, total: int, text: str) -> None:
        nonlocal last, shown
        now = time.monotonic()
        if (done in (0, total) and done != shown) or now - last >= LINE_EVERY_S:
            last, shown = now, done
            logger.info("%s %d/%d %s", name, done, total, text)

    return update
