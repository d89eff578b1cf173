"""A search's trials in Optuna's study: which count, which is next, and which were cut off.

A trial of the search is known by its ``place`` (0, 1, …): its folder and the seed of its parameters. Each time it is
begun is a trial of Optuna's; all but the last were interrupted. So the same trials are drawn however often the search
is killed.
"""

from __future__ import annotations

import hashlib
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from slicewise.config.tune import TuneConfig
from slicewise.tuning.study import make_sampler

PLACE = "place"
INTERRUPTED = "interrupted"
REASON = "reason"
SECONDS = "seconds"
START = "start"


def is_ended(trial: FrozenTrial) -> bool:
    """Whether a trial is over: finished, pruned or failed, not cut off."""
    return trial.state.is_finished() and INTERRUPTED not in trial.user_attrs


def ended(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that are over."""
    return [trial for trial in study.get_trials(deepcopy=False) if is_ended(trial)]


def best_of(study: optuna.Study) -> FrozenTrial | None:
    """The finished trial with the highest score, the earlier of equal ones; None before the first."""
    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return max(finished, key=lambda trial: (trial.value, -trial.number), default=None)


def take_up(study: optuna.Study, space: dict[str, BaseDistribution]) -> None:
    """Put trials that were under way when a call ended back into the queue, and mark those attempts as failed.

    In this order: a kill in between leaves an attempt whose parameters are queued, and none is queued twice.
    """
    trials = study.get_trials(deepcopy=False)
    queued = {trial.user_attrs[PLACE] for trial in trials if trial.state == TrialState.WAITING}
    for trial in trials:
        if trial.state != TrialState.RUNNING:
            continue
        place = trial.user_attrs.get(PLACE)
        # Cut off before it had a place, it left nothing: the same parameters are drawn for the next.
        if place is not None and place not in queued:
            whole = trial.params.keys() == space.keys()
            # One that came from the queue has a place before it has all its parameters.
            params = trial.params if whole else trial.system_attrs["fixed_params"]
            study.enqueue_trial(params, user_attrs={PLACE: place})
        _interrupt(study, trial)


def _interrupt(study: optuna.Study, trial: FrozenTrial) -> None:
    """Mark an attempt as cut off."""
    attempt = optuna.Trial(study, trial._trial_id)
    attempt.set_user_attr(INTERRUPTED, True)
    attempt.set_user_attr(REASON, "interrupted; its parameters are tried again")
    study.tell(trial.number, state=TrialState.FAIL)


def begin(study: optuna.Study, tune: TuneConfig, seed: int, space: dict[str, BaseDistribution]) -> optuna.Trial:
    """Begin the trial that waits, or draw the next."""
    places = [trial.user_attrs[PLACE] for trial in study.get_trials(deepcopy=False) if PLACE in trial.user_attrs]
    following = max(places, default=-1) + 1
    study.sampler = make_sampler(tune, _seed(seed, following))
    trial = study.ask(space)
    if PLACE not in trial.user_attrs:
        trial.set_user_attr(PLACE, following)
    return trial


def begin_with(study: optuna.Study, params: dict[str, Any], space: dict[str, BaseDistribution]) -> None:
    """Queue the settings that the search starts from as its first trial, if they lie in the space."""
    if study.get_trials(deepcopy=False):
        return
    fits = all(key in params and _contains(one, params[key]) for key, one in space.items())
    study.set_user_attr(START, fits)
    if fits:
        study.enqueue_trial(params, user_attrs={PLACE: 0})


def _contains(one: BaseDistribution, value: Any) -> bool:
    try:
        return bool(one._contains(one.to_internal_repr(value)))
    except (TypeError, ValueError):
        return False


def _seed(seed: int, place: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/tune/{place}".encode()).digest()[:4], "little")
