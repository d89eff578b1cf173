"""What each process of a TrainJob runs: ``torchrun … -m components.train.worker JOB``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from components.train.shared_folder import ERROR, SharedFolder
from slicewise.errors import SliceWiseError
from slicewise.files import write_text
from slicewise.logs import configure_logging
from slicewise.progress import Update
from slicewise.training.launch import launch_stage


def main(arguments: list[str]) -> int:
    """Train the job whose file is named; the first process tells how far it has come."""
    configure_logging()
    folder = SharedFolder(Path(arguments[0]).parent)
    first = os.environ.get("RANK", "0") == "0"
    update: Update | None = folder.tell if first else None
    try:
        result: dict[str, Any] = launch_stage(folder.read_job(), folder.weights, update)
    except SliceWiseError as error:
        write_text(folder.path / ERROR, str(error))
        sys.stderr.write(f"error: {error}\n")
        return 1
    if first:
        folder.tell(len(result["history"]), len(result["history"]), "done")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
