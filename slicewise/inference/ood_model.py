"""The fitted half of the out-of-distribution score: Gaussians, wrong-view classifiers and held-out distances.

On disk it is ``ood.safetensors``: float32 arrays only, named after the fields below.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from slicewise.errors import BundleError
from slicewise.inference.ood_distance import (
    LEVELS,
    RANKS,
    Gaussian,
    Matrix,
    Reference,
    log_distance,
    log_p_values,
    normal_scores,
    require,
)
from slicewise.inference.slice_statistics import INTENSITY, SHAPE, Described

PARTS = ("intensity", "shape", "features", "view")
CURE = "run 'slicewise calibrate' and 'slicewise package' again, or copy the whole bundle folder again"


@dataclass(frozen=True)
class Channels:
    """What is typical of each modality; C channels, K ``INTENSITY`` statistics, O of the ``SHAPE``.

    Attributes:
        seen: ``[C]``: 1 where training had enough slices of it, else 0 and so is all else.
        knots: ``[C, K, len(LEVELS)]`` of ``normal_scores``.
        centres: ``[C, K]``.
        whiten: ``[C, K, K]``, as in ``Gaussian``.
        view: ``[C, K + O + 1]``: weights and bias of the logit of a wrong view, on normal scores.
        rarity: ``[C, RANKS]``: held-out distances, as in ``Reference``.
        view_rarity: ``[C, RANKS]``: held-out logits.
        n: ``[C]``: of how many slices.
    """

    seen: Matrix
    knots: Matrix
    centres: Matrix
    whiten: Matrix
    view: Matrix
    rarity: Matrix
    view_rarity: Matrix
    n: Matrix

    def __post_init__(self) -> None:
        c, k = len(self.seen), len(INTENSITY)
        shapes = {
            "seen": (c,),
            "knots": (c, k, len(LEVELS)),
            "centres": (c, k),
            "whiten": (c, k, k),
            "view": (c, k + len(SHAPE) + 1),
            "rarity": (c, RANKS),
            "view_rarity": (c, RANKS),
            "n": (c,),
        }
        for name, shape in shapes.items():
            require(getattr(self, name), shape, f"channels.{name}")

    def distances(self, intensity: NDArray[np.float32], outline: Matrix) -> tuple[Matrix, Matrix]:
        """Log distances of the intensities and logits of a wrong view, ``[N, C]`` each.

        Args:
            intensity: ``[N, C, K]``.
            outline: ``[N, O]`` normal scores of the shape.
        """
        n, c, k = intensity.shape
        scores = normal_scores(intensity.reshape(n, c * k), self.knots.reshape(c * k, -1)).reshape(n, c, k)
        away = np.einsum("nck,ckp->ncp", scores - self.centres, self.whiten)
        logits = np.einsum("nck,ck->nc", scores, self.view[:, :k]) + outline @ self.view[:, k:-1].T + self.view[:, -1]
        return log_distance(away), logits


@dataclass(frozen=True)
class Distances:
    """How far slices are from typical, before anybody knows how rare that is.

    Attributes:
        present: ``[N, C]``: which modalities each slice has.
        intensity: ``[N, C]`` log distances.
        view: ``[N, C]`` logits.
        shape: ``[N]`` log distances.
        features: ``[N]`` log distances.
    """

    present: NDArray[np.bool_]
    intensity: Matrix
    view: Matrix
    shape: Matrix
    features: Matrix


@dataclass(frozen=True)
class OodModel:
    """All of it.

    Attributes:
        channels: Of each modality.
        shape: Of the ``SHAPE`` statistics.
        features: Of the pooled features, with one centre for each set of modalities (``set_of``).
        shape_rarity: Held-out distances.
        features_rarity: Held-out distances.
        total: For each set of modalities, held-out sums of the parts.
        drift: ``score`` and each of ``PARTS``: held-out values, for ``slicewise.inference.drift``.
    """

    channels: Channels
    shape: Gaussian
    features: Gaussian
    shape_rarity: Reference
    features_rarity: Reference
    total: tuple[Reference, ...]
    drift: Mapping[str, Reference]

    def __post_init__(self) -> None:
        sets = 2 ** len(self.channels.seen)
        require(self.shape.knots, (len(SHAPE), len(LEVELS)), "shape.knots")
        require(self.features.centres, (sets, len(self.features.knots)), "features.centres")
        if len(self.total) != sets or set(self.drift) != {"score", *PARTS}:
            raise ValueError("total or drift is incomplete")

    def distances(self, described: Described, pooled: NDArray[np.float32]) -> Distances:
        """How far slices are from typical.

        Args:
            described: Their statistics.
            pooled: ``[N, F]`` features.
        """
        outline = normal_scores(described.shape, self.shape.knots)
        return Distances(
            described.present,
            *self.channels.distances(described.intensity, outline),
            self.shape.distance_of(outline),
            self.features.distance(pooled, set_of(described.present)),
        )

    def parts(self, found: Distances) -> Matrix:
        """How surprising each of ``PARTS`` is, ``[N, 4]``: minus the log of its p-value, so 0 is typical.

        A part that every modality has is averaged over those that the slice has.
        """
        channels = self.channels
        known = found.present * channels.seen
        count = np.maximum(known.sum(axis=1), 1)
        surprise = (
            (log_p_values(found.intensity, channels.rarity, channels.n) * known).sum(axis=1) / count,
            self.shape_rarity.log_p(found.shape),
            self.features_rarity.log_p(found.features),
            (log_p_values(found.view, channels.view_rarity, channels.n) * known).sum(axis=1) / count,
        )
        return -np.column_stack(surprise)


def set_of(present: NDArray[np.bool_]) -> NDArray[np.intp]:
    """``[N, C]`` to the number of each slice's set of modalities: bit ``c`` is set where channel ``c`` is there."""
    return np.asarray(present @ (1 << np.arange(present.shape[1])), dtype=np.intp)


def save_model(model: OodModel, path: Path) -> None:
    """Write ``ood.safetensors``."""
    arrays: dict[str, Matrix] = {f"channels.{name}": array for name, array in vars(model.channels).items()}
    for name in ("shape", "features"):
        arrays |= {f"{name}.{field}": array for field, array in vars(getattr(model, name)).items()}
    references = {"shape_rarity": model.shape_rarity, "features_rarity": model.features_rarity}
    references |= {f"total.{number}": found for number, found in enumerate(model.total)}
    references |= {f"drift.{name}": found for name, found in model.drift.items()}
    # The last number of a reference is how many slices it is of.
    arrays |= {name: np.append(found.knots, found.n) for name, found in references.items()}
    save_file({name: np.ascontiguousarray(array, dtype=np.float32) for name, array in arrays.items()}, path)


def load_model(path: Path, channels: int, features: int) -> OodModel:
    """Read ``ood.safetensors``.

    Args:
        path: The file.
        channels: The network's input channels.
        features: How many pooled features its encoder gives.

    Raises:
        BundleError: The file is missing or damaged, or of another network.
    """
    try:
        arrays = {name: array.astype(np.float64) for name, array in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        raise BundleError(f"{path} is missing or damaged", CURE) from error
    try:
        model = _build(arrays)
    except (KeyError, ValueError) as error:
        raise BundleError(f"{path} does not hold what it should: {error}", CURE) from error
    if len(model.channels.seen) != channels or len(model.features.knots) != features:
        raise BundleError(f"{path} was fitted to another network than the bundle's", CURE)
    return model


def _build(arrays: Mapping[str, Matrix]) -> OodModel:
    def gaussian(name: str) -> Gaussian:
        return Gaussian(*(arrays[f"{name}.{field.name}"] for field in fields(Gaussian)))

    def reference(name: str) -> Reference:
        return Reference(arrays[name][:-1], float(arrays[name][-1]))

    channels = Channels(*(arrays[f"channels.{field.name}"] for field in fields(Channels)))
    return OodModel(
        channels=channels,
        shape=gaussian("shape"),
        features=gaussian("features"),
        shape_rarity=reference("shape_rarity"),
        features_rarity=reference("features_rarity"),
        total=tuple(reference(f"total.{number}") for number in range(2 ** len(channels.seen))),
        drift={name: reference(f"drift.{name}") for name in ("score", *PARTS)},
    )
