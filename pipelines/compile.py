"""The pipeline as KFP v2 YAML."""

from __future__ import annotations

from pathlib import Path

from kfp import compiler

from pipelines.cluster import ClusterConfig
from pipelines.pipeline import build_pipeline
from slicewise.config import Config
from slicewise.errors import UsageError
from slicewise.files import atomic_path


def compile_pipeline(config: Config, cluster: ClusterConfig, out: Path) -> Path:
    """Write the pipeline's YAML, atomically.

    Raises:
        UsageError: ``out`` does not end in ``.yaml`` or ``.yml``.
    """
    if out.suffix not in (".yaml", ".yml"):
        raise UsageError(f"{out} has no YAML name", "end it in .yaml")
    with atomic_path(out) as temporary:
        written = temporary.with_suffix(out.suffix)
        compiler.Compiler().compile(build_pipeline(config, cluster), str(written))
        written.replace(temporary)
    return out
