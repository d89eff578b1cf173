"""The report's part about the data: each study's quality, what was left out, and what the leakage audit found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from slicewise.evaluation.report.pictures import SHOWN_MEMBERS, TWINS
from slicewise.files import atomic_path
from slicewise.slices.audit import load_audit
from slicewise.slices.split import SIDES, load_split
from slicewise.slices.store import SliceStore, StudyEntry

SHOWN_GROUPS = 24
PICTURE = 96
NO_SIDE = "no side"


def data_figures(store: SliceStore, split_folder: Path) -> dict[str, Any]:
    """What ``metrics.json`` says of the data.

    Returns:
        ``studies``: a record per study; ``n_synthetic``; ``audit``: counts, thresholds, disagreements, excluded
        studies and the largest duplicate groups, at most 24.

    Raises:
        StoreError: The split or its audit cannot be read.
    """
    split = load_split(split_folder)
    side_of = {key: side for side in SIDES for key in split.side(side)}
    audit = load_audit(split_folder).model_dump(mode="json", exclude={"format", "version"})
    audit["n_groups"] = len(audit["groups"])
    audit["groups"] = audit["groups"][:SHOWN_GROUPS]
    return {
        "studies": [_record(study, side_of.get(key, NO_SIDE)) for key, study in store.studies.items()],
        "n_synthetic": sum(study.synthetic for study in store.studies.values()),
        "modalities": _modalities(store),
        "audit": audit,
    }


def _modalities(store: SliceStore) -> list[str]:
    """All modalities that some study has: the network's channels in their order, then others."""
    found = {name for study in store.studies.values() for name in study.modalities}
    channels = [name for name in store.index.preprocessing.modalities if name in found]
    return channels + sorted(found - set(channels))


def _record(study: StudyEntry, side: str) -> dict[str, Any]:
    return {
        "study": study.key,
        "source": study.source,
        "synthetic": study.synthetic,
        "side": side,
        "modalities": list(study.modalities),
        "spacing_mm": list(study.spacing_mm) if study.spacing_known else None,
        "frame": list(study.quality.frame),
        "n_slices": len(study.slices),
        "coverage": study.quality.coverage,
        "snr": dict(study.quality.snr),
        "warnings": list(study.warnings),
    }


def save_thumbnails(store: SliceStore, data: dict[str, Any], folder: Path) -> None:
    """Save a small picture of the members of the duplicate groups, at most six per group, for the report.

    Args:
        store: The slice store.
        data: As ``data_figures`` gives.
        folder: They go into ``pictures/duplicates`` in it.
    """
    wanted = [member["study"] for group in data["audit"]["groups"] for member in group["members"][:SHOWN_MEMBERS]]
    for key in dict.fromkeys(wanted):
        path = folder / TWINS / f"{key}.png"
        with atomic_path(path) as temporary:
            _thumbnail(store, key).save(temporary, "PNG", optimize=True)


def _thumbnail(store: SliceStore, key: str) -> Image.Image:
    """The middle slice's first channel that is there."""
    images = store.images(key)
    planes = np.asarray(images[len(images) // 2], dtype=np.float32)
    plane = next((plane for plane in planes if plane.any()), planes[0])
    return Image.fromarray(_grey(plane)).resize((PICTURE, PICTURE), Image.Resampling.BILINEAR)


def _grey(plane: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Grey values 0–255; what is outside the head, 0 in the store, is black."""
    inside = plane != 0
    low, high = np.percentile(plane[inside], (1, 99.5)) if inside.any() else (0.0, 1.0)
    scaled = np.clip((plane - low) / max(high - low, 1e-6), 0, 1)
    return np.where(inside, scaled * 255, 0).astype(np.uint8)
