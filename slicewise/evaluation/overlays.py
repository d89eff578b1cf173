"""Pictures of the best, the median and the worst test studies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from slicewise.config import REGIONS, ModelConfig
from slicewise.evaluation.outputs import load_network
from slicewise.evaluation.plots import COLOURS, figure, to_png
from slicewise.inference.bundle import Calibration
from slicewise.inference.explain import grad_cam
from slicewise.inference.predictor import sigmoid
from slicewise.slices.batches import Batch, SliceData
from slicewise.slices.store import SliceStore


@dataclass(frozen=True)
class Picture:
    """One row of the report's overlays."""

    title: str
    caption: str
    png: str


def pick_studies(records: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """Best, median and worst by WT Dice; fewer when there are fewer, none without masks."""
    scored = sorted(
        (record for record in records if record["WT"]["dice"] is not None),
        key=lambda record: (-record["WT"]["dice"], record["study"]),
    )
    if not scored:
        return []
    picks = {0: "best", len(scored) // 2: "median", len(scored) - 1: "worst"}
    return [(name, scored[at]) for at, name in sorted(picks.items())]


def draw_overlays(store_folder: Path, weights: Path, model: ModelConfig, metrics: dict[str, Any]) -> list[Picture]:
    """Draw each picked study's slice with the most reference tumour: image, reference, model, Grad-CAM."""
    store = SliceStore(store_folder)
    network = load_network(store, weights, model)
    calibration = Calibration.model_validate(metrics["calibration"])
    pictures = []
    for name, record in pick_studies(metrics["studies"]):
        data = SliceData(store, [record["study"]], selected_only=False)
        areas = [int((store.labels(record["study"])[row] > 0).sum()) for _, row in data.refs]
        at = int(np.argmax(areas))
        batch = data.fetch([at])
        dice = ", ".join(f"{r} {record[r]['dice']:.2f}" for r in REGIONS if record[r]["dice"] is not None)
        title = f"{name.capitalize()}: {record['study']}"
        z = store.studies[record["study"]].slices[data.refs[at][1]].z
        caption = f"Dice over all slices: {dice}. Slice {z}, the one with the most reference tumour."
        png = _draw(network, batch, calibration, store.index.preprocessing.modalities)
        pictures.append(Picture(title, caption, png))
    return pictures


def _draw(network: torch.nn.Module, batch: Batch, calibration: Calibration, modalities: tuple[str, ...]) -> str:
    device = next(network.parameters()).device
    with torch.inference_mode():
        features = network.encoder(batch.image.to(device))  # type: ignore[operator]
        logits = network.from_features(features)  # type: ignore[operator]
    temperatures = np.array([calibration.regions[name].temperature for name in REGIONS], dtype=np.float32)
    head = (batch.image[0] != 0).any(dim=0).numpy()
    maps = sigmoid(logits.regions[0].float().cpu().numpy() / temperatures[:, None, None])
    predicted = (maps >= calibration.region_threshold) & head
    probability = float(sigmoid(logits.tumour.float().cpu().numpy() / calibration.tumour.temperature)[0])
    image = batch.image[0].numpy()
    there = [name for name, plane in zip(modalities, image, strict=True) if plane.any()]
    shown = [name for name in ("flair", "t1ce") if name in there] or there[:1]
    planes = [(name.upper(), image[modalities.index(name)]) for name in shown]
    cam = grad_cam(network, features[-1])[0] * head  # type: ignore[arg-type]
    made, axes = figure(12.4, 12.4 / (len(planes) + 3) + 0.3, len(planes) + 3)
    for ax, (title, plane) in zip(axes, planes, strict=False):
        _show(ax, plane, title)
    _show(axes[-3], planes[0][1], "reference")
    _outline(axes[-3], batch.regions[0].numpy() > 0)
    _show(axes[-2], planes[0][1], "model")
    _outline(axes[-2], predicted)
    _show(axes[-1], planes[0][1], f"Grad-CAM, p(tumour) {probability:.2f}")
    axes[-1].imshow(np.ma.masked_less(cam, 0.15), cmap="inferno", alpha=0.55, vmin=0, vmax=1)
    return to_png(made)


def _show(ax: Any, plane: NDArray[np.float32], title: str) -> None:
    # The background is 0 and so is the brain's mean: show it as the darkest grey instead.
    inside = plane[plane != 0]
    low, high = (np.percentile(inside, [1, 99.5])) if inside.size else (0.0, 1.0)
    ax.imshow(np.where(plane == 0, low, plane), cmap="gray", vmin=low, vmax=high, interpolation="bilinear")
    ax.set_title(title, fontsize=10)
    ax.set_axis_off()


def _outline(ax: Any, regions: NDArray[np.bool_]) -> None:
    for name, region in zip(REGIONS, regions, strict=True):
        if region.any():
            ax.contourf(region.astype(float), levels=[0.5, 1.5], colors=[COLOURS[name]], alpha=0.28)
            ax.contour(region.astype(float), levels=[0.5], colors=[COLOURS[name]], linewidths=1.4)
