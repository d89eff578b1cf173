"""Checkpoints: one safetensors file with all that a stage needs to go on; atomic, and no pickle.

Keys: ``model.*``, ``optimiser.<index>.*``, ``average.*`` with a running mean of the weights, ``random.*`` with the
states of torch's generators; progress and the scaler's state are JSON in the metadata.
"""

from __future__ import annotations

import json
from collections.abc import Callable
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
EPOCH = "epoch-{:04d}.safetensors"


@dataclass
class Progress:
    """How far a stage has come.

    Attributes:
        fingerprint: Digest of everything the stage depends on; a checkpoint of another run is refused.
        epoch: Epochs finished.
        best_epoch: The epoch of the best figure, counted from 1; 0 before the first.
        best_score: That figure.
        history: One record per epoch.
        step: Optimiser steps finished in the epoch under way.
        loss_sum: The losses of this epoch's slices so far, added up.
        seconds: What this epoch has taken so far.
    """

    fingerprint: str
    epoch: int = 0
    best_epoch: int = 0
    best_score: float = float("-inf")
    history: list[dict[str, Any]] = field(default_factory=list)
    step: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True)
class Learner:
    """All that changes while learning, apart from progress and torch's own generators.

    Attributes:
        network: The network that learns.
        optimiser: Its optimiser.
        scaler: The gradient scaler; has no state unless precision is fp16.
        average: The running mean of the weights (its module has the network's names), or None.
    """

    network: nn.Module
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: nn.Module | None = None

    def tensors(self) -> dict[str, Tensor]:
        """The tensors of a checkpoint."""
        found = {f"model.{key}": value for key, value in self.network.state_dict().items()}
        for index, values in self.optimiser.state_dict()["state"].items():
            # SGD without momentum keeps a None.
            found |= {f"optimiser.{index}.{key}": value for key, value in values.items() if value is not None}
        if self.average is not None:
            found |= {f"average.{key}": value for key, value in self.average.state_dict().items()}
        found["random.cpu"] = torch.get_rng_state()
        if torch.cuda.is_available():
            found["random.cuda"] = torch.cuda.get_rng_state()
        return {key: torch.as_tensor(value).detach().contiguous() for key, value in found.items()}

    def restore(self, tensors: dict[str, Tensor], scaler: dict[str, Any]) -> None:
        """Go back to what ``tensors`` and ``scaler`` hold, torch's generators included."""
        self.network.load_state_dict(strip(tensors, "model."))
        _restore_optimiser(self.optimiser, strip(tensors, "optimiser."))
        if self.average is not None:
            self.average.load_state_dict(strip(tensors, "average."))
        if scaler:
            self.scaler.load_state_dict(scaler)
        torch.set_rng_state(tensors["random.cpu"])
        if torch.cuda.is_available() and "random.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random.cuda"])


def save_checkpoint(folder: Path, name: str, learner: Learner, state: Progress) -> None:
    """Write everything into one file, atomically."""
    metadata = {"progress": json.dumps(asdict(state)), "scaler": json.dumps(learner.scaler.state_dict())}
    with atomic_path(folder / name) as temporary:
        save_file(learner.tensors(), temporary, metadata=metadata)


def load_checkpoint(folder: Path, name: str, learner: Learner, fingerprint: str) -> Progress | None:
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
            metadata = handle.metadata()
            state = Progress(**json.loads(metadata["progress"]))
            tensors = {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118 - not a dict
        if state.fingerprint == fingerprint:
            learner.restore(tensors, json.loads(metadata["scaler"]))
            return state
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise TrainingError(f"checkpoint {path} is damaged ({error})", cure) from error
    raise TrainingError(f"checkpoint {path} is of another configuration or data set", cure)


def strip(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with ``prefix``, without it."""
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _restore_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    values: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, key = name.split(".", 1)
        like = parameters[int(index)]
        if tensor.shape == like.shape:
            # In the parameter's layout, as before: another order of the same numbers may round differently.
            tensor = torch.empty_like(like, dtype=tensor.dtype, requires_grad=False).copy_(tensor)
        values.setdefault(int(index), {})[key] = tensor
    optimiser.load_state_dict({"state": values, "param_groups": optimiser.state_dict()["param_groups"]})


def clear_leftovers(folder: Path) -> None:
    """Delete the half-written files of a killed process."""
    for path in folder.glob(".*.safetensors.*"):
        path.unlink(missing_ok=True)


def keep_epochs(folder: Path, epoch: int, count: int, save: Callable[[str], None]) -> None:
    """Save a finished epoch under its own name and delete those that are not among the last ``count``.

    Called before ``last`` is written: a kill in between only repeats the epoch, and this. A count of 1 saves
    nothing, as ``last`` is that checkpoint.
    """
    if count > 1:
        save(EPOCH.format(epoch))
    kept = {EPOCH.format(number) for number in range(epoch - count + 1, epoch + 1)} if count > 1 else set()
    for path in folder.glob("epoch-*.safetensors"):
        if path.name not in kept:
            path.unlink(missing_ok=True)
