"""Which slices an epoch is made of, and in which order."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

from slicewise.config.train import SamplingConfig
from slicewise.errors import TrainingError
from slicewise.slices.batches import SliceData

Stratum = tuple[str, bool | None]


class Sampler:
    """Draws the slices of every epoch.

    Strata are source × class. Within a stratum slices come in rounds, each a new permutation, so that none comes a
    second time before all have come once.

    Args:
        data: The training slices.
        config: The section ``train.sampling``.

    Raises:
        TrainingError: ``source_ratio`` does not name the sources that are there.
    """

    def __init__(self, data: SliceData, config: SamplingConfig) -> None:
        self._config = config
        self._strata = _strata(data)
        self.slices = config.epoch_slices or len(data)
        sources = sorted({source for source, _ in self._strata})
        if config.source_ratio and sorted(config.source_ratio) != sources:
            raise TrainingError(
                f"train.sampling.source_ratio names {', '.join(sorted(config.source_ratio))}, "
                f"the training side has {', '.join(sources)}",
                "give a ratio for each of these sources, or for none",
            )

    def order(self, seed: int) -> list[int]:
        """The slices of one epoch; the same for the same seed."""
        rng = np.random.default_rng(seed)
        weights = self._weights()
        counts = _round(self.slices * np.array(list(weights.values())) / sum(weights.values()), rng)
        drawn = [_rounds(self._strata[name], int(count), rng) for name, count in zip(weights, counts, strict=True)]
        order: list[int] = rng.permutation(np.concatenate(drawn)).tolist() if drawn else []
        return order

    def _weights(self) -> dict[Stratum, float]:
        """What part of an epoch each stratum gets."""
        sizes = {name: float(len(rows)) for name, rows in sorted(self._strata.items(), key=str)}
        if self._config.balance_classes:
            for source in {source for source, _ in sizes}:
                pair = [(source, False), (source, True)]
                if all(name in sizes for name in pair):
                    mean = sum(sizes[name] for name in pair) / 2
                    sizes |= dict.fromkeys(pair, mean)
        if self._config.source_ratio:
            total: dict[str, float] = defaultdict(float)
            for (source, _), size in sizes.items():
                total[source] += size
            sizes = {name: self._config.source_ratio[name[0]] * size / total[name[0]] for name, size in sizes.items()}
        return sizes


def _strata(data: SliceData) -> dict[Stratum, NDArray[np.intp]]:
    rows: dict[Stratum, list[int]] = defaultdict(list)
    for row, name in enumerate(zip(data.sources(), data.tumour(), strict=True)):
        rows[name].append(row)
    return {name: np.array(found, dtype=np.intp) for name, found in rows.items()}


def _round(wanted: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.intp]:
    """Whole numbers of the same sum; what rounding leaves over goes to strata at random, by their remainders."""
    counts = np.floor(wanted + 1e-9).astype(np.intp)
    left = round(float(wanted.sum())) - int(counts.sum())
    if left > 0:
        remainder = np.maximum(wanted - counts, 1e-9)
        chosen = rng.choice(len(wanted), left, replace=False, p=remainder / remainder.sum())
        counts[chosen] += 1
    return counts


def _rounds(rows: NDArray[np.intp], count: int, rng: np.random.Generator) -> NDArray[np.intp]:
    whole = -(-count // len(rows))
    return np.concatenate([rng.permutation(rows) for _ in range(whole)])[:count] if whole else rows[:0]
