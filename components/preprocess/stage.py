"""The body of component ``preprocess``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.runtime import StageRecord, stage
from slicewise.config import PreprocessConfig, validate
from slicewise.progress import progress
from slicewise.slices.build import build_store
from slicewise.slices.store import SliceStore


def run(dataset: Any, section: Mapping[str, Any], seed: int, run_folder: str, store: Any) -> None:
    """Build the store and describe its artifact."""
    with stage("preprocess", run_folder) as record, progress("preprocess") as update:
        config = validate(PreprocessConfig, section)
        describe(build_store(Path(dataset.path), Path(store.path), config, seed, update), record, store)


def describe(built: SliceStore, record: StageRecord, artifact: Any) -> None:
    """Say in the stage's record and on its artifact what is in the store."""
    slices = sum(len(study.slices) for study in built.studies.values())
    record.figures = {"studies": len(built.studies), "slices": slices, "left out": len(built.index.failures)}
    record.outputs = {"store": artifact.path}
    artifact.metadata.update({"studies": len(built.studies), "slices": slices})
