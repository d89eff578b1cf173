"""What the user sees while the pipeline runs: stages, progress, and the log lines worth reading."""

from __future__ import annotations

import re
import time
from pathlib import Path
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from components.runtime import ERROR_MARK
from pipelines.runs import TASK

ANSI = re.compile(r"\x1b\[[0-9;]*m")
FINISHED = re.compile(r"Task '?([\w-]+)'? finished with status (\w+)")
CACHED = re.compile(r"(?i)task '?([\w-]+)'?.*cach|cach.*task '?([\w-]+)'?")
STEP = re.compile(r"slicewise\.progress: (\S+) (\d+)/(\d+) ?(.*)")
OURS = re.compile(
    r"^\s*\d\d:\d\d:\d\d (INFO|WARNING|ERROR|CRITICAL) (slicewise|serving|components|pipelines)[\w.]*: (.*)"
)
NAMES = {"train": "train: seg_warmup", "train-2": "train: cls_head", "train-3": "train: joint"}


class StageDisplay:
    """Takes the local runner's output line by line; writes it all to a file and shows the gist.

    On a terminal a bar follows the current stage; elsewhere every few seconds a plain line.

    Args:
        log: The file for the whole output.
        console: Where to show the gist.
    """

    def __init__(self, log: Path, console: Console) -> None:
        self.console = console
        self.error = ""
        self.failed = ""
        self.reused: list[str] = []
        self._log_path = log
        self._log: TextIO | None = None
        self._start = time.monotonic()
        self._buffer = ""
        self._stage = ""
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[text]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> StageDisplay:
        """Open the log and the bar."""
        self._log = self._log_path.open("a", encoding="utf-8")
        if self.console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close both."""
        self._bar.stop()
        if self._log:
            self._log.close()

    def write(self, text: str) -> int:
        """Take output, whole lines or parts of them (a text stream's ``write``)."""
        self._buffer += text
        *lines, self._buffer = self._buffer.split("\n")
        for line in lines:
            self._line(ANSI.sub("", line))
        return len(text)

    def flush(self) -> None:
        """Flush the log."""
        if self._log:
            self._log.flush()

    def isatty(self) -> bool:
        """A stream for lines, not a terminal."""
        return False

    def _line(self, line: str) -> None:
        if self._log:
            self._log.write(line + "\n")
        if found := TASK.search(line):
            self._begin(found.group(1))
        elif found := FINISHED.search(line):
            self._end(found.group(1), found.group(2))
        elif found := STEP.search(line):
            self._step(found.group(1), int(found.group(2)), int(found.group(3)), found.group(4))
        elif found := OURS.match(line):
            self._message(found.group(1), found.group(3))

    def _begin(self, task: str) -> None:
        self._stage = NAMES.get(task, task)
        self.console.print(f"[bold]{self._clock()}  {escape(self._stage)}[/]")
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task(self._stage, total=None, text="")

    def _end(self, task: str, status: str) -> None:
        # Groups fail because a task in them did: the first failure is the task.
        if status.upper() != "SUCCESS" and not self.failed:
            self.failed = NAMES.get(task, task)

    def _step(self, name: str, done: int, total: int, text: str) -> None:
        if self.console.is_terminal and self._task is not None:
            self._bar.update(self._task, completed=done, total=total, text=text)
        else:
            self.console.print(
                f"{self._clock()}    {escape(name)} {done}/{total} {escape(text)}", highlight=False, soft_wrap=True
            )

    def _message(self, level: str, text: str) -> None:
        if ERROR_MARK in text:
            self.error = text.split(ERROR_MARK, 1)[1].strip()
            return
        style = {"WARNING": "yellow", "ERROR": "red"}.get(level, "dim")
        self.console.print(f"{self._clock()}    [{style}]{escape(text)}[/]", highlight=False, soft_wrap=True)

    def _clock(self) -> str:
        seconds = int(time.monotonic() - self._start)
        return f"{seconds // 60:2d}:{seconds % 60:02d}"
