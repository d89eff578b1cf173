"""The body of component ``package``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.runtime import stage
from serving.torchserve.archive import build_archive
from slicewise import RESEARCH_USE
from slicewise.config import ModelConfig, ServeConfig, validate
from slicewise.files import write_text
from slicewise.inference.package import make_bundle


def run(
    store: Any,
    weights: Any,
    calibration: Any,
    evaluation: Any,
    model: Mapping[str, Any],
    serve: Mapping[str, Any],
    run_folder: str,
    bundle: Any,
    archive: Any,
    links: Any,
) -> None:
    """Write bundle and archive, and describe them."""
    with stage("package", run_folder) as record:
        config = validate(ServeConfig, serve)
        made = make_bundle(
            Path(store.path),
            Path(weights.path),
            Path(calibration.path),
            Path(evaluation.path),
            validate(ModelConfig, model),
            config.model_name,
            Path(bundle.path),
        )
        mar = build_archive(made.folder, Path(archive.path), config)
        megabytes = round(mar.stat().st_size / 1e6, 1)
        record.figures = {"digest": made.digest[:12], "archive MB": megabytes}
        record.outputs = {"bundle": bundle.path, "archive": str(mar)}
        bundle.metadata.update({"digest": made.digest, "research_use": made.meta.research_use})
        archive.metadata.update({"file": mar.name})
        write_text(Path(links.path), links_page(made.digest, bundle.uri, archive.uri, mar.name))


def links_page(digest: str, bundle: str, archive: str, file: str) -> str:
    """Where the model lies, as Markdown for Kubeflow's UI."""
    rows = {"bundle": bundle, "archive": f"{archive}/{file}", "digest (SHA-256)": digest}
    lines = ["# The model", "", "| what | where |", "| --- | --- |"]
    lines += [f"| {name} | `{value}` |" for name, value in rows.items()]
    return "\n".join([*lines, "", RESEARCH_USE, ""])
