"""The id of a run at a tracking service, kept so that a killed stage goes on in the same run."""

from __future__ import annotations

from pathlib import Path

from slicewise.files import read_json, write_json


def read_run(path: Path, target: str) -> str | None:
    """The id of the run that was begun at ``target``; None if there is none, or its file is damaged."""
    try:
        kept = read_json(path)
    except (OSError, ValueError):
        return None
    if not isinstance(kept, dict) or kept.get("target") != target:
        return None
    run = kept.get("run_id")
    return run if isinstance(run, str) else None


def write_run(path: Path, target: str, run: str) -> None:
    """Keep the id of a run."""
    write_json(path, {"target": target, "run_id": run})
