"""The pipeline and its components as KFP v2 YAML."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

from kfp import compiler
from kfp.dsl.base_component import BaseComponent

from components.images import TARGETS
from pipelines.cluster import ClusterConfig
from pipelines.compiled import check_compiled
from pipelines.pipeline import build_pipeline
from slicewise.config import Config
from slicewise.errors import UsageError
from slicewise.files import atomic_path


def compile_pipeline(config: Config, cluster: ClusterConfig, out: Path) -> Path:
    """Write the pipeline's YAML, atomically, once it has been checked.

    Raises:
        UsageError: ``out`` does not end in ``.yaml`` or ``.yml``.
        PipelineError: What was compiled is wrong: the installed KFP is not the one that is asked for.
    """
    if out.suffix not in (".yaml", ".yml"):
        raise UsageError(f"{out} has no YAML name", "end it in .yaml")
    with _written(out) as temporary:
        compiler.Compiler().compile(build_pipeline(config, cluster), str(temporary))
        check_compiled(temporary)
    return out


def component_of(name: str) -> BaseComponent:
    """One of the components, by name."""
    component: BaseComponent = getattr(import_module(f"components.{name}.component"), name)
    return component


def write_components(folder: Path) -> list[Path]:
    """Write every component as YAML for other pipelines, ``<folder>/<name>.yaml``.

    Others load one with ``kfp.components.load_component_from_file``.
    """
    paths = [folder / f"{name}.yaml" for name in TARGETS]
    for path in paths:
        with _written(path) as temporary:
            compiler.Compiler().compile(component_of(path.stem), str(temporary))
    return paths


@contextmanager
def _written(out: Path) -> Iterator[Path]:
    """A temporary file with the suffix that the compiler asks for, which then takes the place of ``out``."""
    with atomic_path(out) as temporary:
        named = temporary.with_suffix(".yaml")
        try:
            yield named
            named.replace(temporary)
        finally:
            named.unlink(missing_ok=True)
