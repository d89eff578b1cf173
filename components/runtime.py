"""What every component does around its one call: logging, the stage's record, errors as one line."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from slicewise.errors import SliceWiseError
from slicewise.files import write_json
from slicewise.logs import configure_logging
from slicewise.process import exit_with_owner

logger = logging.getLogger("components")
# Set by the local runner: components end when the command that started them is gone.
OWNER_VARIABLE = "SLICEWISE_OWNER_PID"
# Set by the local runner: servers outlive the command.
KEEP_VARIABLE = "SLICEWISE_KEEP_SERVERS"
# Set in a cluster, from the pod's label: the run's id there. As a parameter it would keep Kubeflow from finding
# anything in its cache.
RUN_ID_VARIABLE = "KFP_RUN_ID"
RECORDS = "stages"
FAILURES = "failures"
ERROR_MARK = "stage failed:"


def run_id() -> str:
    """The run's id in the cluster; empty on a machine without one."""
    return os.environ.get(RUN_ID_VARIABLE, "")


@dataclass
class StageRecord:
    """What a stage tells of itself.

    Attributes:
        figures: Key figures, in the order in which they are shown.
        outputs: Where its artifacts lie.
    """

    figures: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)


@contextmanager
def stage(name: str, run_folder: str) -> Iterator[StageRecord]:
    """Run one stage's body.

    Args:
        name: The stage, ``train`` with its training stage as ``train-joint``.
        run_folder: The local run's folder, where the record goes; empty in a cluster.

    Raises:
        SystemExit: With code 1 and one line in the log for a deliberate error.
    """
    configure_logging()
    owner = os.environ.get(OWNER_VARIABLE)
    if owner:
        exit_with_owner(int(owner), lambda: os._exit(1))
    record, start = StageRecord(), time.perf_counter()
    try:
        yield record
    except SliceWiseError as error:
        logger.error("%s %s", ERROR_MARK, error)
        if run_folder:
            write_json(Path(run_folder) / FAILURES / f"{name}.json", {"stage": name, "error": str(error)})
        raise SystemExit(1) from None
    if run_folder:
        (Path(run_folder) / FAILURES / f"{name}.json").unlink(missing_ok=True)
        body = {
            "stage": name,
            "seconds": round(time.perf_counter() - start, 2),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "figures": record.figures,
            "outputs": record.outputs,
        }
        write_json(Path(run_folder) / RECORDS / f"{name}.json", body)
