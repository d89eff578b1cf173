"""What the network says of all slices of one side of the split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from slicewise.config import REGIONS, ModelConfig
from slicewise.evaluation.scored import Scored
from slicewise.model.device import choose_device, place_network
from slicewise.model.network import MultiTaskUNet, build_network
from slicewise.progress import Update
from slicewise.slices.batches import SliceData
from slicewise.slices.split import Side, load_split
from slicewise.slices.store import SliceStore
from slicewise.training.stage import WEIGHTS, load_weights
from slicewise.training.validate import Inferred, infer

# Of each slice and region: from the foreground, and from the rest of the head.
FOREGROUND_PIXELS, BACKGROUND_PIXELS = 64, 32
# How far the foreground reaches beyond tumour, in pixels of the network's input.
MARGIN = 5
BATCH = 32
Visit = Callable[[MultiTaskUNet, Inferred, int], None]


@dataclass(frozen=True)
class Outputs:
    """Logits and truth of a side.

    Attributes:
        data: The slices.
        rows: ``[n]`` index in ``data`` of each slice whose class is known.
        logits: ``[n]`` tumour logits of these.
        truth: ``[n]`` 0 or 1.
        groups: The patient group of each.
        pixels: Region → a seeded, weighted sample of head pixels; their groups are codes.
    """

    data: SliceData
    rows: NDArray[np.intp]
    logits: NDArray[np.float32]
    truth: NDArray[np.float32]
    groups: list[str]
    pixels: dict[str, Scored]

    @property
    def slices(self) -> Scored:
        """The slices whose class is known."""
        return Scored.of(self.logits, self.truth, self.groups)


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
    visit: Visit | None = None,
    update: Update | None = None,
) -> Outputs:
    """Run the network over every slice of a side, not only those selected for training.

    Args:
        store_folder: The slice store.
        split_folder: The folder of ``split.json``.
        weights: The folder of the trained weights.
        model: The section ``model``.
        side: Which side.
        visit: Called with the network, every batch's outputs and features, and the index of its first slice.
        update: Shows progress.
    """
    store = SliceStore(store_folder)
    data = SliceData(store, load_split(split_folder).side(side), selected_only=False)
    names = group_names(split_folder)
    codes = {name: code for code, name in enumerate(sorted(set(names.values())))}
    rng = np.random.default_rng(0)
    rows, logits, truth, start = [], [], [], 0
    samples: dict[str, list[Scored]] = {}
    network = load_network(store, weights, model)
    for out in infer(network, data, BATCH, keep_features=visit is not None):
        known = out.batch.tumour_known.numpy() > 0
        rows.append(start + np.flatnonzero(known))
        logits.append(out.tumour.numpy()[known])
        truth.append(out.batch.tumour.numpy()[known])
        _sample_pixels(out, [codes[names[data.keys[study]]] for study in out.batch.study], rng, samples)
        if visit:
            visit(network, out, start)
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
    out: Inferred, groups: list[int], rng: np.random.Generator, samples: dict[str, list[Scored]]
) -> None:
    """Draw pixels of the head: all pixels of all slices would be millions, and neighbours say the same."""
    if out.regions is None:
        return
    head = (out.batch.image != 0).any(dim=1, keepdim=True)
    near = foreground_of(out.regions, out.batch.regions, head).flatten(2).numpy()
    logits, truth = out.regions.flatten(2).numpy(), out.batch.regions.flatten(2).numpy()
    for at, inside in enumerate(head.flatten(1).numpy()):
        for region, name in enumerate(REGIONS):
            if out.batch.known[at, region]:
                plane = (logits[at, region], truth[at, region], near[at, region])
                samples.setdefault(name, []).append(sample_pixels(*plane, inside, groups[at], rng))


def foreground_of(logits: torch.Tensor, truth: torch.Tensor, head: torch.Tensor) -> torch.Tensor:
    """Where calibration matters: at most ``MARGIN`` pixels from tumour, in the reference or by the raw logit.

    Without the margin a pixel that the model calls free would be in only if it is tumour, and no model could be
    calibrated there. Mehrtash et al. (IEEE Transactions on Medical Imaging, 2020) take the bounding box instead,
    which one stray pixel stretches over the head.

    Args:
        logits: ``[N, R, H, W]``.
        truth: The same shape, 0 or 1.
        head: ``[N, 1, H, W]`` bool.
    """
    tumour = ((truth > 0) | (logits >= 0)) & head
    return (functional.max_pool2d(tumour.float(), 2 * MARGIN + 1, stride=1, padding=MARGIN) > 0) & head


def sample_pixels(
    logits: NDArray[np.float32],
    truth: NDArray[np.float32],
    foreground: NDArray[np.bool_],
    inside: NDArray[np.bool_],
    group: int,
    rng: np.random.Generator,
) -> Scored:
    """A stratified sample of one plane's pixels.

    Tumour is a few percent of a head: drawn evenly, most slices would give none. So foreground and background are
    drawn apart, and each pixel is weighted by how many of its part it stands for: weighted sums are those of all
    pixels, on average (Horvitz and Thompson, 1952).

    Args:
        logits: ``[pixels]``.
        truth: ``[pixels]``, 0 or 1.
        foreground: ``[pixels]``.
        inside: ``[pixels]`` the head.
        group: The code of the patient group.
        rng: Draws.
    """
    drawn, weights = [], []
    for part, most in ((foreground, FOREGROUND_PIXELS), (~foreground, BACKGROUND_PIXELS)):
        pixels = np.flatnonzero(part & inside)
        n = min(most, len(pixels))
        drawn.append(rng.choice(pixels, n, replace=False, shuffle=False))
        weights.append(np.full(n, len(pixels) / max(n, 1), dtype=np.float32))
    at = np.concatenate(drawn)
    return Scored(logits[at], truth[at], np.full(len(at), group), np.concatenate(weights), foreground[at])


def _join(parts: list[Scored]) -> Scored:
    return Scored(
        np.concatenate([part.logits for part in parts]),
        np.concatenate([part.truth for part in parts]),
        np.concatenate([part.groups for part in parts]),
        np.concatenate([part.weights for part in parts]),
        np.concatenate([part.foreground for part in parts if part.foreground is not None]),
    )
