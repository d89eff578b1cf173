"""Which slices of a study take part in training."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from slicewise.config import PreprocessConfig


def select_slices(tumour: Sequence[bool | None], config: PreprocessConfig, seed: int, study_id: str) -> list[bool]:
    """Choose training slices: tumour and tumour-free ones in the configured proportion.

    The draw depends on the seed and the study's id alone, so adding studies changes nothing for the others.

    Args:
        tumour: Per slice whether it shows tumour; None where that is unknown (never selected when others are).
        config: ``train_slices`` and ``tumour_share``.
        seed: The run's seed.
        study_id: The study.

    Returns:
        One bool per slice.
    """
    digest = hashlib.sha256(f"{seed}/{study_id}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "little"))
    with_tumour = [index for index, value in enumerate(tumour) if value is True]
    without = [index for index, value in enumerate(tumour) if value is False]
    wanted = round(config.train_slices * config.tumour_share)
    n_with = min(len(with_tumour), max(wanted, config.train_slices - len(without)))
    n_without = min(len(without), config.train_slices - n_with)
    chosen = {int(index) for index in rng.permutation(with_tumour)[:n_with]}
    chosen |= {int(index) for index in rng.permutation(without)[:n_without]}
    return [index in chosen for index in range(len(tumour))]
