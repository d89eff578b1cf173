"""The body of component ``preprocess_shard``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.runtime import stage
from slicewise.config import PreprocessConfig, validate
from slicewise.progress import progress
from slicewise.slices.shards import build_shard


def run(
    dataset: Any, section: Mapping[str, Any], seed: int, shard: int, shards: int, run_folder: str, store: Any
) -> None:
    """Build the shard and describe its artifact."""
    name = f"preprocess-shard-{shard}"
    with stage(name, run_folder) as record, progress(name) as update:
        config = validate(PreprocessConfig, section)
        index = build_shard(Path(dataset.path), Path(store.path), config, seed, shard, shards, update)
        record.figures = {"studies": len(index.studies), "left out": len(index.failures)}
        record.outputs = {"shard": store.path}
        store.metadata.update({"studies": len(index.studies), "shard": f"{shard + 1} of {shards}"})
