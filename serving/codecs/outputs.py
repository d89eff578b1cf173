"""The names of the model's V2 outputs: which task each belongs to, and which to ask for."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

ALWAYS = ("tumor_probability", "tumor_label", "error")
OOD = ("ood_score", "ood_parts")
# One map [H, W] (or [regions, H, W]) for each slice, and the task that makes it.
MAP_TASKS = {
    "mask": "segment",
    "region_probability": "segment",
    "gradcam": "explain",
    "uncertainty": "uncertainty",
    "epistemic": "uncertainty",
    "aleatoric": "uncertainty",
}
TASKS = MAP_TASKS | {"uncertainty_scores": "uncertainty"}
# region_probability is four times the size of everything else: only when it is named among the outputs.
ON_DEMAND = frozenset({"region_probability"})


def output_names(tasks: Collection[str], *, scores: bool, segment: Sequence[str] = ("mask",)) -> tuple[str, ...]:
    """The outputs to name in a request, since naming one means naming all.

    Args:
        tasks: The request's tasks.
        scores: Whether the model has an out-of-distribution score.
        segment: Which of the segmentation's outputs.
    """
    names = [*ALWAYS, *(segment if "segment" in tasks else ())]
    names += [name for name, task in TASKS.items() if task in tasks and task != "segment"]
    return (*names, *(OOD if scores else ()))


def has_scores(meta: Mapping[str, Any]) -> bool:
    """Whether the model of this ``bundle.json`` has an out-of-distribution score."""
    return meta.get("ood", {}).get("threshold") is not None
