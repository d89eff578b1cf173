"""The body of component ``gate``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from components.runtime import stage
from slicewise.evaluation.evaluate import FILE
from slicewise.files import read_json

logger = logging.getLogger("components.gate")


def run(evaluation: Any, run_folder: str) -> str:
    """Return the verdict and log its reasons."""
    with stage("gate", run_folder) as record:
        verdict = read_json(Path(evaluation.path) / FILE)["verdict"]
        word = "passed" if verdict["passed"] else "refused"
        record.figures = {"verdict": word} | ({"reasons": verdict["reasons"]} if verdict["reasons"] else {})
        logger.info("the gate %s the model%s", word, "".join(f"; {reason}" for reason in verdict["reasons"]))
    return word
