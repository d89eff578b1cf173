"""How rare a distance is: held-out distances of validation patients, and of training patients by cross-fitting.

Validation alone is often three or four patients, and a threshold from so few is a matter of luck. A training patient,
judged by Gaussians that were fitted without it, is as good a witness for all but the features (whose network it
taught); Barber et al., "Predictive inference with the jackknife+", Ann. Stat. 2021.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from slicewise.evaluation.ood_fit import ENOUGH, fit_typical
from slicewise.evaluation.ood_slices import Sample
from slicewise.inference.ood import score_parts
from slicewise.inference.ood_distance import Matrix, Reference
from slicewise.inference.ood_model import PARTS, Distances, OodModel, set_of

FOLDS = 5


@dataclass(frozen=True)
class HeldOut:
    """Distances of slices of patients that nothing was fitted on.

    Attributes:
        distances: The distances.
        groups: ``[N]`` number of the patient group.
    """

    distances: Distances
    groups: NDArray[np.intp]

    @property
    def weights(self) -> Matrix:
        """Every patient weighs the same, however many slices there are of it."""
        _, patient, counts = np.unique(self.groups, return_inverse=True, return_counts=True)
        return np.asarray(1 / counts[patient])


def hold_out(model: OodModel, train: Sample, wrong: Sample, validation: Sample) -> HeldOut:
    """Distances of the validation patients to ``model``, and of training patients to models fitted without them.

    Args:
        model: What is typical of all training slices.
        train: Training slices, whole and with modalities withheld.
        wrong: Wrong views of them.
        validation: Validation slices, with every set of modalities that they can show.
    """
    patients = np.random.default_rng(0).permutation(np.unique(train.groups))
    parts = np.array_split(patients, min(FOLDS, len(patients))) if len(patients) > 1 else []
    found = [_measure(model, validation)]
    for part in parts:
        mine, theirs = np.isin(train.groups, part), np.isin(wrong.groups, part)
        found.append(_measure(fit_typical(train.take(~mine), wrong.take(~theirs)), train.take(mine)))
    return _join(found)


def _measure(model: OodModel, sample: Sample) -> HeldOut:
    """Distances of the slices whose modalities the model has all seen."""
    known = sample.take(np.asarray((sample.described.present <= model.channels.seen).all(axis=1)))
    return HeldOut(model.distances(known.described, known.pooled), known.groups)


def _join(parts: Sequence[HeldOut]) -> HeldOut:
    names = [field.name for field in fields(Distances)]
    joined = Distances(*(np.concatenate([getattr(part.distances, name) for part in parts]) for name in names))
    return HeldOut(joined, np.concatenate([part.groups for part in parts]))


def calibrate(model: OodModel, held_out: HeldOut) -> OodModel:
    """The model with its references, from held-out distances of at least one slice.

    A modality that no held-out slice has counts as not seen: nobody can say how rare its distances are.
    """
    found, weights = held_out.distances, held_out.weights
    channels = replace(model.channels, seen=model.channels.seen * found.present.any(axis=0))
    rarity, view_rarity = np.zeros_like(channels.rarity), np.zeros_like(channels.view_rarity)
    n = np.ones_like(channels.n)
    for at in np.flatnonzero(channels.seen):
        rows = found.present[:, at]
        distance = Reference.of(found.intensity[rows, at], weights[rows])
        logit = Reference.of(found.view[rows, at], weights[rows])
        rarity[at], view_rarity[at], n[at] = distance.knots, logit.knots, distance.n
    model = replace(
        model,
        channels=replace(channels, rarity=rarity, view_rarity=view_rarity, n=n),
        shape_rarity=Reference.of(found.shape, weights),
        features_rarity=Reference.of(found.features, weights),
    )
    parts = model.parts(found)
    model = replace(model, total=_totals(parts.sum(axis=1), set_of(found.present), weights, len(model.total)))
    values = {"score": score_parts(model, found.present, parts)} | dict(zip(PARTS, parts.T, strict=True))
    return replace(model, drift={name: Reference.of(value, weights) for name, value in values.items()})


def _totals(total: Matrix, sets: NDArray[np.intp], weights: Matrix, n_sets: int) -> tuple[Reference, ...]:
    """Held-out sums of the parts for each set of modalities; of all sets together where there are few slices."""
    rows = [np.flatnonzero(sets == number) for number in range(n_sets)]
    everything = np.arange(len(total))
    chosen = [mine if len(mine) >= ENOUGH else everything for mine in rows]
    return tuple(Reference.of(total[mine], weights[mine]) for mine in chosen)
