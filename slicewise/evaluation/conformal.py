"""The band of unsure answers, by conformal prediction over patients.

Slices of one patient are alike, so that a new patient's slice is not exchangeable with the calibration slices, and
the quantile of plain split conformal prediction promises too much. Patients are exchangeable: every patient counts
the same, its slices share its weight, and the new patient counts as one more whose scores are unknown (hierarchical
conformal prediction: Lee, Barber and Willett, "Distribution-free inference with hierarchical data", 2023,
arXiv:2306.06342; after Dunn, Wasserman and Ramdas, JASA 2023). This holds at any number of patients, and uses every
slice without drawing any. Each class has its own quantile (Mondrian; Vovk et al., 2005).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicewise.evaluation.scored import Scored
from slicewise.inference.calibration import Abstain, Calibrator


def hierarchical_quantile(scores: NDArray[Any], groups: NDArray[Any], alpha: float) -> float:
    """The least value that a random score of a new group exceeds with probability ``alpha`` at most.

    Args:
        scores: ``[n]``.
        groups: ``[n]`` the group of each.
        alpha: Accepted share above.

    Returns:
        Infinity where there are too few groups to promise that: fewer than ``1 / alpha - 1``.
    """
    _, index, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.argsort(scores, kind="stable")
    reached = np.cumsum(1.0 / ((len(sizes) + 1) * sizes[index[order]]))
    # A sum of shares that should be 1 - alpha may miss it by a rounding error.
    at = int(np.searchsorted(reached, 1 - alpha - 1e-9))
    return float(scores[order][at]) if at < len(scores) else math.inf


def conformal_band(scored: Scored, calibrator: Calibrator, threshold: float, alpha: float | None) -> Abstain:
    """Where the answer is sure: of either class, a share of at most ``alpha`` gets a wrong sure answer.

    The scores are the raw logits, which the calibration has no part in. As it never falls, the bounds on the logit
    are bounds on the calibrated probability, whatever data it was fitted on. Where the bounds leave room, the
    threshold decides: it is always inside the band.

    Args:
        scored: Validation slices, each its own patient group's; not used to train the network.
        calibrator: Of the slice's probability.
        threshold: On the calibrated probability.
        alpha: Accepted share of wrong sure answers in each class; None for no band.
    """
    if alpha is None:
        return Abstain(reason="not asked for: alpha is null")
    tumour, free = scored.take(scored.truth == 1), scored.take(scored.truth == 0)
    patients, needed = (tumour.n_groups, free.n_groups), math.ceil(1 / alpha - 1 - 1e-9)
    lowest = -hierarchical_quantile(-tumour.logits, tumour.groups, alpha)
    highest = hierarchical_quantile(free.logits, free.groups, alpha)
    if not np.isfinite([lowest, highest]).all():
        reason = (
            f"no band: alpha {alpha:g} needs {needed} validation patients with tumour slices and {needed} with "
            f"slices free of tumour, there are {patients[0]} and {patients[1]}"
        )
        return Abstain(alpha=alpha, patients=patients, reason=reason)
    promise = f"at most {alpha:.0%} of each class get a wrong sure answer"
    low, high = calibrator.apply(np.array([lowest, highest], dtype=np.float32))
    return Abstain(
        alpha=alpha,
        low=min(float(low), threshold),
        # The next number: a slice as suspicious as the bound itself is not yet sure.
        high=max(float(np.nextafter(high, np.float32(np.inf))), threshold),
        patients=patients,
        reason=f"{promise}; from {patients[0]} and {patients[1]} patients",
    )
