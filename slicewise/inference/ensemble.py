"""Several trained networks as the members of one ensemble."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from slicewise.config import ModelConfig
from slicewise.errors import BundleError, TrainingError
from slicewise.inference.bundle import load_bundle
from slicewise.inference.calibration import Calibration
from slicewise.inference.sampling import Member
from slicewise.model.device import place_network
from slicewise.model.network import MultiTaskUNet, build_network
from slicewise.training.record import RECORD, WEIGHTS, load_weights, read_record

ALIKE = ("trained_regions", "trained_tasks")


def bundle_members(folders: Sequence[Path], device: torch.device) -> list[Member]:
    """Networks of several bundles, each calibrated by its own; their architectures may differ.

    Raises:
        BundleError: No folder, one of them twice, a bundle that cannot be loaded, or two that see slices differently
            or were taught other regions.
    """
    if len({folder.resolve() for folder in folders}) < max(len(folders), 1):
        raise BundleError("an ensemble needs one or more different bundles", "name each folder once")
    bundles = [load_bundle(folder) for folder in folders]
    first = bundles[0].meta
    for bundle in bundles[1:]:
        for name in ("preprocessing", "trained_regions"):
            if getattr(bundle.meta, name) != getattr(first, name):
                raise BundleError(
                    f"{bundle.folder} and {bundles[0].folder} differ in {name}, so they make no ensemble",
                    "use bundles of one slice store and one configuration, trained with other seeds or folds",
                )
    return [Member(place_network(bundle.network(), device), bundle.meta.calibration) for bundle in bundles]


def checkpoint_members(
    folders: Sequence[Path], in_channels: int, model: ModelConfig, calibration: Calibration, device: torch.device
) -> list[Member]:
    """Networks of several trained stages (``weights.safetensors`` and ``stage.json``), with one calibration.

    Raises:
        TrainingError: No folder, one of them twice, a folder without a trained stage, weights of another
            architecture, or stages that were taught different things.
    """
    if len({folder.resolve() for folder in folders}) < max(len(folders), 1):
        raise TrainingError("an ensemble needs one or more different weight folders", "name each folder once")
    taught = [_taught(folder) for folder in folders]
    for folder, what in zip(folders, taught, strict=True):
        if what != taught[0]:
            raise TrainingError(
                f"{folder / RECORD}: taught {what}, but {folders[0]} {taught[0]}",
                "use stages of one configuration, trained with other seeds or folds",
            )
    return [Member(_network(folder, in_channels, model, device), calibration) for folder in folders]


def _taught(folder: Path) -> dict[str, Any]:
    record = read_record(folder)
    return {name: record.get(name) for name in ALIKE}


def _network(folder: Path, in_channels: int, model: ModelConfig, device: torch.device) -> MultiTaskUNet:
    network = build_network(in_channels, model)
    try:
        network.load_state_dict(load_weights(folder / WEIGHTS))
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        message = f"{folder / WEIGHTS} does not fit the section model: {reason}"
        raise TrainingError(message, "set model.* as in training") from error
    return place_network(network, device).eval()
