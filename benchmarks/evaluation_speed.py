"""How long the figures of a study take, against MONAI's and DeepMind's ways of the same ones; ratios from one run.

    python benchmarks/evaluation_speed.py data/brats

The folder holds BraTS patients (155 slices of 240 × 240). A patient's label volume is the reference, and a copy moved
by a few voxels with some false specks the prediction; without a folder, phantoms are enlarged to that size. Ours is
everything that ``metrics.json`` tells of a mask: overlap, surface distances, lesion-wise figures, diameters, side.
MONAI's is overlap and surface distances, DeepMind's the surface distances alone. Rounds alternate; medians of
CPU seconds of one thread are compared. The result goes to ``benchmarks/results/evaluation_speed.json``.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import nibabel as nib
import numpy as np
import surface_distance
import torch
from monai.metrics import (
    compute_average_surface_distance,
    compute_confusion_matrix_metric,
    compute_dice,
    compute_hausdorff_distance,
    compute_iou,
    get_confusion_matrix,
)
from numpy.typing import NDArray

from slicewise.config import ModelConfig, PhantomConfig
from slicewise.evaluation.overlap import study_figures
from slicewise.evaluation.surfels import surface_areas
from slicewise.inference.calibration import Calibration
from slicewise.inference.measures import measure
from slicewise.inference.restore import restore_regions
from slicewise.model.network import MultiTaskUNet, build_network
from slicewise.slices.crop import SliceGeometry
from slicewise.slices.regions import region_maps
from slicewise.studies.orientation import to_display
from slicewise.studies.phantom import make_phantom

RESULT = Path(__file__).parent / "results" / "evaluation_speed.json"
SHAPE = (155, 240, 240)
SPACING = (1.0, 1.0, 1.0)
ROUNDS, N_STUDIES, N_SPECKS = 3, 4, 40
Masks = NDArray[np.bool_]


def references(folder: Path | None) -> Iterator[Masks]:
    """``[3, D, H, W]`` of some studies."""
    if folder is None:
        for index in (1, 2, 5, 6):
            study = make_phantom(index, PhantomConfig(shape=(80, 80, 51)), seed=1)
            large = np.pad(
                to_display(study.label, study.affine).repeat(3, 0).repeat(3, 1).repeat(3, 2), ((1, 1), (0, 0), (0, 0))
            )
            yield np.ascontiguousarray(np.moveaxis(region_maps(large), -3, 0))
        return
    for path in sorted(folder.glob("*/*_seg.nii*"))[:N_STUDIES]:
        file = nib.load(path)
        labels = to_display(np.asarray(file.dataobj), file.affine).astype(np.uint8)
        yield np.ascontiguousarray(np.moveaxis(region_maps(labels), -3, 0))


def predicted_from(reference: Masks, seed: int) -> Masks:
    """The reference moved by a few voxels, with specks: larger than any crop around the tumour."""
    moved = np.roll(reference, (1, 3, -2), axis=(1, 2, 3))
    rng = np.random.default_rng(seed)
    for corner in rng.integers(10, np.array(SHAPE) - 12, (N_SPECKS, 3)):
        moved[(slice(None), *(slice(at, at + 2) for at in corner))] = True
    return moved


def ours(predicted: Masks, reference: Masks, head: Masks) -> None:
    study_figures(predicted, reference, np.ones(3, dtype=np.bool_), SPACING, head)
    measure(predicted, SPACING, head)


def monais(predicted: Masks, reference: Masks, head: Masks) -> None:
    del head  # MONAI counts in the entire frame
    pair = [torch.from_numpy(mask)[None] for mask in (predicted, reference)]
    compute_dice(*pair)
    compute_iou(*pair)
    counts = get_confusion_matrix(*pair)
    for name in ("sensitivity", "specificity"):
        compute_confusion_matrix_metric(name, counts)
    compute_hausdorff_distance(*pair, include_background=True, percentile=95, spacing=SPACING)
    compute_average_surface_distance(*pair, include_background=True, symmetric=True, spacing=SPACING)


def deepminds(predicted: Masks, reference: Masks, head: Masks) -> None:
    del head
    for mask, truth in zip(predicted, reference, strict=True):
        if mask.any() and truth.any():
            found = surface_distance.compute_surface_distances(truth, mask, SPACING)
            surface_distance.compute_robust_hausdorff(found, 95)
            surface_distance.compute_average_surface_distance(found)


def seconds_of(call: Callable[..., None], *arguments: Any) -> float:
    """CPU seconds: what else the machine does counts little."""
    start = time.process_time()
    call(*arguments)
    return time.process_time() - start


def figures_speed(folder: Path | None) -> dict[str, Any]:
    """Seconds per study of each way, and how many times ours they are."""
    ways = {"ours": ours, "monai": monais, "deepmind": deepminds}
    taken: dict[str, list[float]] = {name: [] for name in ways}
    surface_areas(SPACING)  # made once per process
    head = np.zeros(SHAPE, dtype=np.bool_)
    head[5:150, 30:210, 40:200] = True
    for seed, reference in enumerate(references(folder)):
        predicted = predicted_from(reference, seed)
        for _ in range(ROUNDS):
            for name, call in ways.items():
                taken[name].append(seconds_of(call, predicted, reference, head))
    seconds = {name: statistics.median(values) for name, values in taken.items()}
    return {
        "seconds_per_study": {name: round(value, 3) for name, value in seconds.items()},
        "slowest_of_ours": round(max(taken["ours"]), 3),
        "times_ours": {name: round(value / seconds["ours"], 2) for name, value in seconds.items()},
        "studies": len(taken["ours"]) // ROUNDS,
        "real_scans": folder is not None,
    }


def forward_speed(folder: Path | None) -> dict[str, Any]:
    """What a study takes after the network, against the network's own pass over its slices, for some networks.

    After the network: calibrated maps back into the study's voxels, and all figures.
    """
    reference = next(references(folder))
    predicted, head = np.roll(reference, (1, 3, -2), axis=(1, 2, 3)), np.zeros(SHAPE, dtype=np.bool_)
    head[5:150, 30:210, 40:200] = True
    found = {}
    for preset, size in (("tiny", 96), ("small", 96), ("small", 128)):
        network = build_network(4, ModelConfig(preset=preset)).eval()
        images = torch.randn(SHAPE[0], 4, size, size)
        logits = np.random.default_rng(0).normal(-3, 2, (SHAPE[0], 3, size, size)).astype(np.float32)
        taken: dict[str, list[float]] = {"forward": [], "after": []}
        for _ in range(ROUNDS):
            taken["forward"].append(seconds_of(forward, network, images))
            taken["after"].append(seconds_of(restore, logits, head) + seconds_of(ours, predicted, reference, head))
        medians = {name: round(statistics.median(values), 3) for name, values in taken.items()}
        found[f"{preset}_{size}"] = medians | {"after_over_forward": round(medians["after"] / medians["forward"], 3)}
    return found


def forward(network: MultiTaskUNet, images: torch.Tensor) -> None:
    with torch.inference_mode():
        for batch in images.split(32):
            network(batch)


def restore(logits: NDArray[np.float32], head: Masks) -> None:
    geometry, calibration = SliceGeometry(SHAPE[1:], 20, 20, (200, 200)), Calibration()
    for z, planes in enumerate(logits):
        restore_regions(planes, calibration, geometry, head[z], np.ones(3, dtype=np.bool_))


# Each section of the result; a further one is added here.
SECTIONS: dict[str, Callable[[Path | None], dict[str, Any]]] = {"figures": figures_speed, "forward": forward_speed}


def main() -> None:
    torch.set_num_threads(1)
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    result: dict[str, Any] = {name: section(folder) for name, section in SECTIONS.items()}
    result |= {"threads": 1, "load_average": round(os.getloadavg()[0], 2)}
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(f"{RESULT}\n")


if __name__ == "__main__":
    main()
