"""``slicewise run``: the pipeline, two requests to the served model, and the servers' end."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from pipelines.cluster import ClusterConfig
from pipelines.local import collect, run_pipeline
from pipelines.runs import Run
from pipelines.summary import relative
from serving.local import smoke_requests, stop_stack
from serving.state import StackState
from slicewise.errors import SliceWiseError
from slicewise.inference.predictor import SliceInput
from slicewise.slices.planes import cut_study
from slicewise.slices.split import load_split
from slicewise.slices.store import SliceStore
from slicewise.studies.dataset import load_dataset
from slicewise.studies.reading import read_study


def run_job(run: Run, console: Console, *, keep: bool, cluster: ClusterConfig | None = None) -> dict[str, Any]:
    """Run the pipeline, ask the served model for two answers, and stop it unless it is to be kept.

    Returns:
        What happened, as JSON-ready data: ``stages``, ``gate``, ``requests``, paths and seconds.

    Raises:
        SliceWiseError: A stage or a request failed.
    """
    start = time.perf_counter()
    with run.lock():
        run.save("running")
        (run.folder / "stages" / "deploy.json").unlink(missing_ok=True)
        try:
            records = run_pipeline(run, console, keep=keep, cluster=cluster)
            paths = collect(run, records)
            verdict = records["gate"]["figures"]
            served = _ask(run, records, keep=keep) if verdict["verdict"] == "passed" else {}
        except SliceWiseError as error:
            run.save("failed", error=str(error))
            raise
        except KeyboardInterrupt:
            run.save("stopped")
            raise
        result = {
            "run": relative(run),
            "gate": verdict["verdict"],
            "reasons": verdict.get("reasons", []),
            "deployed": bool(served),
            "stages": records,
            "requests": served.get("requests", {}),
            "kept_url": served.get("url", "") if keep else "",
            "kept_pid": served.get("pid") if keep else None,
            "seconds": round(time.perf_counter() - start, 1),
            **paths,
        }
        run.save("done" if served else "refused", seconds=result["seconds"], requests=result["requests"])
    return result


def _ask(run: Run, records: dict[str, dict[str, Any]], *, keep: bool) -> dict[str, Any]:
    """Send one test slice to the served model."""
    state = StackState.read(Path(records["deploy"]["outputs"]["state"]))
    try:
        item, truth = _test_slice(records)
        found = smoke_requests(state.gateway_url, item)
        answers: dict[str, dict[str, Any]] = {
            "classification": {
                "label": found.predicted_label,
                "probability": found.tumor_probability,
                "reference": truth,
                "ms": found.classify_ms,
            },
            "segmentation": {
                "mask": "{}×{}".format(*found.mask_shape),
                **{f"{region} pixels": found.mask_pixels[region] for region in found.trained_regions},
                "trained for": ", ".join(found.trained_regions) or "no region: no training study has a mask",
                "ms": found.segment_ms,
            },
        }
        return {"requests": answers, "url": state.gateway_url, "pid": state.pid}
    finally:
        if not keep:
            stop_stack(state)


def _test_slice(records: dict[str, dict[str, Any]]) -> tuple[SliceInput, str]:
    """The raw slice of a test study that has the most tumour, and what the reference says of it."""
    outputs = {key: value for record in records.values() for key, value in record["outputs"].items()}
    store = SliceStore(Path(outputs["store"]))
    split = load_split(Path(outputs["split"]))
    key = next((key for key in split.test if store.studies[key].has_tumour), split.test[0])
    entry = store.studies[key]
    data = load_dataset(Path(outputs["dataset"]))
    record = next(r for r in data.records if r.study_id == entry.study_id)
    study = cut_study(read_study(record, data.root), store.index.preprocessing.plane)
    z = entry.slices[len(entry.slices) // 2].z
    if study.labels is not None:
        z = int(np.argmax(np.count_nonzero(study.labels, axis=(1, 2))))
    truth = "tumour" if any(row.tumour for row in entry.slices if row.z == z) else "no tumour or unknown"
    image = np.stack([channel[z] for channel in study.channels])
    return SliceInput(image, study.modalities, study.spacing_mm[1:]), truth
