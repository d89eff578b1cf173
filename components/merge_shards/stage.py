"""The body of component ``merge_shards``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from components.preprocess.stage import describe
from components.runtime import stage
from slicewise.config import PreprocessConfig, validate
from slicewise.slices.shards import merge_shards


def run(shards: Sequence[Any], section: Mapping[str, Any], run_folder: str, store: Any) -> None:
    """Merge the shards; the record is that of the whole stage."""
    with stage("preprocess", run_folder) as record:
        limit = validate(PreprocessConfig, section).max_failed_share
        describe(merge_shards([Path(shard.path) for shard in shards], Path(store.path), limit), record, store)
