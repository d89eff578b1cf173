"""The body of component ``summarise``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from components.kubeflow_api import RunState, connect, read_run
from components.runtime import FAILURES, RECORDS, run_id
from components.summarise.summary import Row, Summary
from slicewise.errors import SliceWiseError
from slicewise.files import read_json, write_text
from slicewise.logs import configure_logging

logger = logging.getLogger("components.summarise")
SUMMARY = "summary.md"


def run(status: Any, run_folder: str, artifact: Any) -> None:
    """Write the summary as an artifact and, on this machine, into the run's folder.

    It is told from what can be known at that moment and never fails: a run's end must not hide how it ended.
    """
    configure_logging()
    told = from_folder(status, Path(run_folder)) if run_folder else from_cluster(status)
    text = told.markdown()
    write_text(Path(artifact.path), text)
    if run_folder:
        write_text(Path(run_folder) / SUMMARY, text)
    logger.info("the run %s%s", told.state.lower(), f" in {told.failed}: {told.error}" if told.failed else "")


def from_folder(status: Any, folder: Path) -> Summary:
    """What the records in a local run's folder tell."""
    records = [read_json(path) for path in (folder / RECORDS).glob("*.json")]
    records.sort(key=lambda record: record["finished"])
    failures = [read_json(path) for path in sorted((folder / FAILURES).glob("*.json"))]
    failed, error = _failure(status)
    if failures and failed:
        failed, error = failures[0]["stage"], failures[0]["error"]
    rows = [Row(record["stage"], "SUCCEEDED", record["seconds"], _first(record["outputs"])) for record in records]
    rows += [Row(failure["stage"], "FAILED", None, "") for failure in failures]
    return Summary(status.state, failed, error, tuple(rows), outputs=str(folder))


def from_cluster(status: Any) -> Summary:
    """What Kubeflow's API tells of this run; the bare status where it cannot be asked."""
    failed, error = _failure(status)
    try:
        state: RunState | None = read_run(connect(), run_id())
    except SliceWiseError as reason:
        logger.warning("the summary has no tasks: %s", reason)
        state = None
    if state is None:
        return Summary(status.state, failed, error, (), run=run_id())
    task = state.failed
    if task:
        failed, error = task.name, task.error or error
    rows = tuple(Row(task.name, task.state, task.seconds, "") for task in state.tasks)
    return Summary(status.state, failed, error, rows, run=state.run_id, outputs=state.root)


def _failure(status: Any) -> tuple[str, str]:
    """The task and the error that the final status names; it knows the group better than the task."""
    if status.state == "SUCCEEDED":
        return "", ""
    return status.pipeline_task_name, status.error_message or ""


def _first(outputs: dict[str, str]) -> str:
    return next(iter(outputs.values()), "")
