"""The body of component ``download``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from components.runtime import stage
from slicewise.config import DownloadConfig, validate
from slicewise.progress import progress
from slicewise.studies.acquire import acquire


def run(sources: Sequence[str], section: Mapping[str, Any], seed: int, run_folder: str, dataset: Any) -> None:
    """Acquire the sources and describe the dataset artifact."""
    with stage("download", run_folder) as record, progress("download") as update:
        data = acquire(
            sources,
            Path(dataset.path),
            validate(DownloadConfig, section),
            seed,
            lambda text, done, total: update(done, total, text),
        )
        record.figures = {"studies": len(data.records), "sources": [str(source.name) for source in data.sources]}
        record.outputs = {"dataset": dataset.path}
        dataset.metadata.update({"studies": len(data.records), "digest": data.digest})
