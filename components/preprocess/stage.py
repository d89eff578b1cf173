"""The body of component ``preprocess``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.runtime import stage
from slicewise.config import PreprocessConfig, validate
from slicewise.progress import progress
from slicewise.slices.build import build_store


def run(dataset: Any, section: Mapping[str, Any], seed: int, run_folder: str, store: Any) -> None:
    """Build the store and describe its artifact."""
    with stage("preprocess", run_folder) as record, progress("preprocess") as update:
        built = build_store(Path(dataset.path), Path(store.path), validate(PreprocessConfig, section), seed, update)
        slices = sum(len(study.slices) for study in built.studies.values())
        record.figures = {"studies": len(built.studies), "slices": slices, "left out": len(built.index.failures)}
        record.outputs = {"store": store.path}
        store.metadata.update({"studies": len(built.studies), "slices": slices})
