"""The body of component ``split``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.runtime import stage
from slicewise.config import SplitConfig, validate
from slicewise.slices.split import SIDES, split_store


def run(store: Any, section: Mapping[str, Any], seed: int, run_folder: str, assignment: Any) -> None:
    """Split, audit, and describe the artifact."""
    with stage("split", run_folder) as record:
        made = split_store(Path(store.path), Path(assignment.path), validate(SplitConfig, section), seed)
        counts: dict[str, Any] = {side: len(made.side(side)) for side in SIDES}
        record.figures = counts | {
            "patient groups": len(made.groups),
            "duplicate groups": made.audit["duplicate_groups"],
            "left out": len(made.excluded),
            "audit": "passed",
        }
        record.outputs = {"split": assignment.path}
        assignment.metadata.update(counts | made.audit)
