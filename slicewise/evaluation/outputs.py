"""What the network says of all slices of one side of the split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from slicewise.config import REGIONS, ModelConfig
from slicewise.model.device import choose_device, place_network
from slicewise.model.network import MultiTaskUNet, build_network
from slicewise.progress import Update
from slicewise.slices.batches import SliceData
from slicewise.slices.split import Side, load_split
from slicewise.slices.store import SliceStore
from slicewise.training.stage import WEIGHTS, load_weights
from slicewise.training.validate import Inferred, infer

PIXELS_PER_SLICE = 64
BATCH = 32


@dataclass(frozen=True)
class Outputs:
    """Logits and truth of a side.

    Attributes:
        data: The slices.
        rows: ``[n]`` index in ``data`` of each slice whose class is known.
        logits: ``[n]`` tumour logits of these.
        truth: ``[n]`` 0 or 1.
        groups: The patient group of each.
        pixels: Region → logits, truth and groups of a seeded sample of head pixels.
    """

    data: SliceData
    rows: NDArray[np.intp]
    logits: NDArray[np.float32]
    truth: NDArray[np.float32]
    groups: list[str]
    pixels: dict[str, tuple[NDArray[np.float32], NDArray[np.float32], list[str]]]


def load_network(store: SliceStore, weights: Path, model: ModelConfig) -> MultiTaskUNet:
    """The trained network on the best device there is, in evaluation mode."""
    network = build_network(len(store.index.preprocessing.modalities), model)
    network.load_state_dict(load_weights(weights / WEIGHTS))
    return place_network(network, choose_device()).eval()


def group_names(split_folder: Path) -> dict[str, str]:
    """Study key → patient group."""
    split = load_split(split_folder)
    return {key: name for name, keys in split.groups.items() for key in keys}


def collect_outputs(
    store_folder: Path,
    split_folder: Path,
    weights: Path,
    model: ModelConfig,
    side: Side,
    visit: Callable[[Inferred, int], None] | None = None,
    update: Update | None = None,
) -> Outputs:
    """Run the network over every slice of a side, not only those selected for training.

    Args:
        store_folder: The slice store.
        split_folder: The folder of ``split.json``.
        weights: The folder of the trained weights.
        model: The section ``model``.
        side: Which side.
        visit: Called with every batch's outputs and the index of its first slice.
        update: Shows progress.
    """
    store = SliceStore(store_folder)
    data = SliceData(store, load_split(split_folder).side(side), selected_only=False)
    names = group_names(split_folder)
    rng = np.random.default_rng(0)
    rows, logits, truth, start = [], [], [], 0
    samples: dict[str, list[tuple[NDArray[np.float32], NDArray[np.float32], list[str]]]] = {}
    for out in infer(load_network(store, weights, model), data, BATCH):
        known = out.batch.tumour_known.numpy() > 0
        rows.append(start + np.flatnonzero(known))
        logits.append(out.tumour.numpy()[known])
        truth.append(out.batch.tumour.numpy()[known])
        _sample_pixels(out, [names[data.keys[study]] for study in out.batch.study], rng, samples)
        if visit:
            visit(out, start)
        start += len(out.tumour)
        if update:
            update(start, len(data), side)
    index = np.concatenate(rows) if rows else np.zeros(0, dtype=np.intp)
    return Outputs(
        data=data,
        rows=index,
        logits=np.concatenate(logits) if logits else np.zeros(0, dtype=np.float32),
        truth=np.concatenate(truth) if truth else np.zeros(0, dtype=np.float32),
        groups=[names[data.keys[data.refs[row][0]]] for row in index],
        pixels={region: _join(parts) for region, parts in samples.items()},
    )


def _sample_pixels(
    out: Inferred,
    groups: list[str],
    rng: np.random.Generator,
    samples: dict[str, list[tuple[NDArray[np.float32], NDArray[np.float32], list[str]]]],
) -> None:
    """Draw pixels of the head: all pixels of all slices would be millions, and neighbours say the same."""
    if out.regions is None:
        return
    head = (out.batch.image != 0).any(dim=1).flatten(1).numpy()
    for at, inside in enumerate(head):
        pixels = np.flatnonzero(inside)
        chosen = rng.choice(pixels, min(PIXELS_PER_SLICE, len(pixels)), replace=False)
        for region, name in enumerate(REGIONS):
            if out.batch.known[at, region]:
                logits = out.regions[at, region].flatten().numpy()[chosen]
                truth = out.batch.regions[at, region].flatten().numpy()[chosen]
                samples.setdefault(name, []).append((logits, truth, [groups[at]] * len(chosen)))


def _join(
    parts: list[tuple[NDArray[np.float32], NDArray[np.float32], list[str]]],
) -> tuple[NDArray[np.float32], NDArray[np.float32], list[str]]:
    logits = np.concatenate([part[0] for part in parts])
    truth = np.concatenate([part[1] for part in parts])
    return logits, truth, [group for part in parts for group in part[2]]
