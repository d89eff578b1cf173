"""Choose among calibration methods by the likelihood of patients that they were not fitted on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student_t
from sklearn.model_selection import GroupKFold

from slicewise.evaluation.calibrators import fit_map
from slicewise.evaluation.reliability import log_losses
from slicewise.evaluation.scored import Scored
from slicewise.inference.calibration import Calibrator, Candidate, IdentityMap, Method

Floats = NDArray[np.float64]
Losses = Mapping[Method, Floats | None]
# From the fewest parameters to the most.
SIMPLEST_FIRST: tuple[Method, ...] = ("identity", "temperature", "platt", "beta", "isotonic")
MIN_GAIN = 1e-6
CERTAINTY = 0.95


def choose_calibrator(scored: Scored, methods: Sequence[Method], folds: int, name: str) -> Calibrator:
    """Fit the method that is worth it on held-out patients; the identity where none is.

    A method is worth it when it surely lowers the held-out NLL: by a paired one-sided t-test over patients, which
    asks more where they are few. Of those, the simplest is taken that is within one standard error of the best
    (Breiman et al., 1984). So the held-out NLL never rises.

    Args:
        scored: Values of one output.
        methods: What to try beside the identity.
        folds: At most so many; made of whole patient groups.
        name: The output, for messages.

    Raises:
        TrainingError: Some logit is not finite.
    """
    scored.require_finite(name)
    if obstacle := _obstacle(scored):
        return Calibrator(reason=f"not fitted: {obstacle}", n=len(scored))
    tried: list[Method] = [method for method in SIMPLEST_FIRST if method in ("identity", *methods)]
    losses = {method: _held_out_losses(scored, method, folds) for method in tried}
    candidates = tuple(_candidate(scored, method, losses) for method in tried)
    chosen = _choose(scored, candidates, losses)
    return Calibrator(
        method=chosen.method,
        parameters=fit_map(chosen.method, scored) or IdentityMap(),
        kept=chosen.method != "identity",
        reason=_reason(chosen, candidates, scored.n_groups),
        n=len(scored),
        nll_before=candidates[0].nll,
        nll_after=chosen.nll,
        candidates=candidates,
    )


def _obstacle(scored: Scored) -> str:
    if scored.n_groups < 2:
        return "too few patients to hold any out"
    return "validation has one class only" if len(np.unique(scored.truth)) < 2 else ""


def _held_out_losses(scored: Scored, method: Method, folds: int) -> Floats | None:
    """NLL of each value by the map fitted on the other folds; None where one of them, or all, allow no map."""
    losses = np.zeros(len(scored))
    if fit_map(method, scored) is None:
        return None
    splits = GroupKFold(min(folds, scored.n_groups)).split(scored.logits, groups=scored.groups)
    for fit, hold in splits:
        found = fit_map(method, scored.take(fit))
        if found is None:
            return None
        probability = Calibrator(method=method, parameters=found).apply(scored.logits[hold])
        losses[hold] = log_losses(probability, scored.truth[hold])
    return losses


def _candidate(scored: Scored, method: Method, losses: Losses) -> Candidate:
    mine, identity = losses[method], losses["identity"]
    if mine is None or identity is None:
        return Candidate(method=method)
    gain, error = _mean_and_error(identity - mine, scored)
    return Candidate(method=method, nll=_mean_and_error(mine, scored)[0], gain=gain, gain_error=error)


def _mean_and_error(values: Floats, scored: Scored) -> tuple[float, float]:
    """Weighted mean, and its standard error when patients and not values are independent."""
    _, groups = np.unique(scored.groups, return_inverse=True)
    weights = scored.weights.astype(np.float64)
    mean = float(weights @ values / weights.sum())
    scores = np.bincount(groups, weights * (values - mean)) / weights.sum()
    n = len(scores)
    return mean, float(np.sqrt(n / (n - 1) * (scores @ scores)))


def _choose(scored: Scored, candidates: Sequence[Candidate], losses: Losses) -> Candidate:
    errors = float(student_t.ppf(CERTAINTY, scored.n_groups - 1))
    worth = [c for c in candidates if (c.gain or 0.0) > max(MIN_GAIN, errors * (c.gain_error or 0.0))]
    if not worth:
        return candidates[0]
    best = max(worth, key=lambda candidate: candidate.gain or 0.0)
    for candidate in worth:
        mine, least = losses[candidate.method], losses[best.method]
        if mine is not None and least is not None:
            lag, error = _mean_and_error(mine - least, scored)
            if lag <= error:
                return candidate
    return best


def _reason(chosen: Candidate, candidates: Sequence[Candidate], patients: int) -> str:
    fitted = [candidate for candidate in candidates[1:] if candidate.gain is not None]
    if chosen.method != "identity":
        return f"held-out NLL {candidates[0].nll:.4f} → {chosen.nll:.4f} over {patients} patients: kept"
    if not fitted:
        return "not fitted: no method could be fitted without some of the patients"
    best = max(fitted, key=lambda candidate: candidate.gain or 0.0)
    return (
        f"{best.method} changes the held-out NLL of {candidates[0].nll:.4f} by {-(best.gain or 0.0):+.4f} ± "
        f"{best.gain_error:.4f} over {patients} patients: no sure gain, not applied"
    )
