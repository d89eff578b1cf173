"""Checkpoints: one safetensors file with weights, optimiser state and progress; atomic, and no pickle."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from slicewise.errors import TrainingError
from slicewise.files import atomic_path

LAST = "last.safetensors"
BEST = "best.safetensors"


@dataclass
class Progress:
    """How far a stage has come.

    Attributes:
        fingerprint: Digest of everything the stage depends on; a checkpoint of another run is refused.
        epoch: Epochs finished.
        best_epoch: The epoch of the best figure, counted from 1; 0 before the first.
        best_score: That figure.
        history: One record per epoch.
    """

    fingerprint: str
    epoch: int = 0
    best_epoch: int = 0
    best_score: float = float("-inf")
    history: list[dict[str, Any]] = field(default_factory=list)


def save_checkpoint(
    folder: Path, name: str, network: nn.Module, optimiser: torch.optim.Optimizer, state: Progress
) -> None:
    """Write weights, optimiser state and progress into one file, atomically."""
    tensors = {f"model.{key}": value.detach().contiguous() for key, value in network.state_dict().items()}
    for index, values in optimiser.state_dict()["state"].items():
        for key, value in values.items():
            tensors[f"optimiser.{index}.{key}"] = torch.as_tensor(value).contiguous()
    with atomic_path(folder / name) as temporary:
        save_file(tensors, temporary, metadata={"progress": json.dumps(asdict(state))})


def load_checkpoint(
    folder: Path, name: str, network: nn.Module, optimiser: torch.optim.Optimizer, fingerprint: str
) -> Progress | None:
    """Restore a checkpoint in place.

    Returns:
        The progress, or None when there is no checkpoint.

    Raises:
        TrainingError: The checkpoint is damaged or belongs to another configuration or data set.
    """
    path = folder / name
    if not path.exists():
        return None
    cure = f"delete {path} to train this stage from its start"
    try:
        with safe_open(path, framework="pt") as handle:
            state = Progress(**json.loads(handle.metadata()["progress"]))
            tensors = {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise TrainingError(f"checkpoint {path} is damaged ({error})", cure) from error
    if state.fingerprint != fingerprint:
        raise TrainingError(f"checkpoint {path} is of another configuration or data set", cure)
    network.load_state_dict(strip(tensors, "model."))
    _restore_optimiser(optimiser, strip(tensors, "optimiser."))
    return state


def strip(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with ``prefix``, without it."""
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _restore_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    values: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, key = name.split(".", 1)
        values.setdefault(int(index), {})[key] = tensor
    optimiser.load_state_dict({"state": values, "param_groups": optimiser.state_dict()["param_groups"]})
