"""What a stage leaves: its weights and its record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from slicewise.errors import TrainingError
from slicewise.files import atomic_path, read_json, write_json

WEIGHTS = "weights.safetensors"
RECORD = "stage.json"


def write_result(out: Path, network: nn.Module, record: dict[str, Any]) -> None:
    """Write ``weights.safetensors`` and, after it, ``stage.json`` into ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    weights = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    with atomic_path(out / WEIGHTS) as temporary:
        save_file(weights, temporary)
    write_json(out / RECORD, record)


def load_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read weights.

    Raises:
        TrainingError: Missing or damaged.
    """
    try:
        tensors: dict[str, torch.Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise TrainingError(
            f"{path} is missing or damaged", "delete its folder and train that stage again"
        ) from error
    return tensors


def read_record(folder: Path) -> dict[str, Any]:
    """Read the record of the stage before.

    Raises:
        TrainingError: Missing or damaged.
    """
    try:
        record: dict[str, Any] = read_json(folder / RECORD)
    except (OSError, ValueError) as error:
        raise TrainingError(f"{folder} holds no trained stage", "train the stage before first") from error
    return record


def monitor_score(monitor: str, figures: dict[str, Any]) -> float:
    """The figure that decides which epoch is best; higher is better.

    That of ``loss`` is the negative validation loss, as is the others' where they are undefined, for instance the AUC
    of a validation split with one class. That of ``last`` is the epoch itself, so that each beats those before.
    """
    if monitor == "last":
        return float(figures["epoch"])
    dice, auc = figures["val_dice"], figures["val_auc"]
    wanted = {"dice": [dice], "auc": [auc], "combined": [dice, auc], "loss": []}[monitor]
    defined = [float(value) for value in wanted if value is not None]
    return sum(defined) / len(defined) if defined else -float(figures["val_loss"])
