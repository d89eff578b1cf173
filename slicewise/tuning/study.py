"""The search on the disk: Optuna's journal, and what makes it safe to kill and to call again."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from pydantic import JsonValue

from slicewise.config import Config
from slicewise.config.tune import Choice, TuneConfig, takes_whole_numbers
from slicewise.errors import TrainingError, UsageError
from slicewise.locks import hold_alone

JOURNAL = "journal.jsonl"
LOCK = "tune.lock"
IDENTITY = "identity"
Scalar = str | int | float | bool | None


class _NoLock(JournalFileOpenLock):
    """The whole folder is locked already; Optuna's own lock would outlive a killed process."""

    def acquire(self) -> bool:
        """Nothing to wait for."""
        return True

    def release(self) -> None:
        """Nothing was taken."""


@contextlib.contextmanager
def locked(out: Path) -> Iterator[None]:
    """Hold the search's folder; a killed process lets go of it by itself.

    Raises:
        RunLockedError: Another process holds it.
        TrainingError: It cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        handle = (out / LOCK).open("a")
    except OSError as error:
        raise TrainingError(f"{out} cannot be written: {error.strerror}", "choose another --out") from error
    with handle:
        hold_alone(handle, f"another search is working in {out}")
        yield


def open_study(out: Path, identity: dict[str, str]) -> optuna.Study:
    """Open the search in ``out``, or begin it.

    Raises:
        UsageError: The search there was of other settings or data; names which.
        TrainingError: Its journal is damaged.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = out / JOURNAL
    _cut_torn_line(path)
    try:
        storage = JournalStorage(JournalFileBackend(str(path), lock_obj=_NoLock(str(path))))
    except (ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"{path} is damaged ({error})", f"delete {out} to search from the start") from error
    study = optuna.create_study(storage=storage, study_name="tune", direction="maximize", load_if_exists=True)
    before = study.user_attrs.get(IDENTITY)
    if before is None:
        study.set_user_attr(IDENTITY, identity)
    elif before != identity:
        changed = [key for key in before | identity if before.get(key) != identity.get(key)]
        cure = "choose another --out, or give what it was begun with"
        raise UsageError(f"{out} holds a search that differs in {', '.join(changed)}", cure)
    return study


def _cut_torn_line(path: Path) -> None:
    """Take off what a killed process wrote of its last line: Optuna would append to it and then read neither."""
    if not path.exists():
        return
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        with path.open("r+b") as handle:
            handle.truncate(len(whole))


def make_sampler(tune: TuneConfig, seed: int) -> optuna.samplers.BaseSampler:
    """The sampler of one trial; all it knows of earlier ones it reads from the study."""
    if tune.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed)


def make_pruner(tune: TuneConfig) -> optuna.pruners.BasePruner:
    """What decides whether a trial goes on; epochs are counted from 1."""
    if tune.pruner == "none":
        return optuna.pruners.NopPruner()
    return optuna.pruners.MedianPruner(n_startup_trials=tune.pruner_trials, n_warmup_steps=tune.pruner_epochs + 1)


def distributions(tune: TuneConfig, config: Config) -> dict[str, BaseDistribution]:
    """The space in Optuna's words.

    Raises:
        ConfigError: A key takes whole numbers only and its range has others.
    """
    found: dict[str, BaseDistribution] = {}
    for key, dimension in tune.space.items():
        if isinstance(dimension, Choice):
            found[key] = CategoricalDistribution([as_scalar(choice) for choice in dimension.choices])
        elif takes_whole_numbers(config, key, dimension):
            found[key] = IntDistribution(int(dimension.low), int(dimension.high), log=dimension.log)
        else:
            found[key] = FloatDistribution(float(dimension.low), float(dimension.high), log=dimension.log)
    return found


def as_scalar(choice: JsonValue) -> Scalar:
    """A choice as Optuna takes it: lists and tables as JSON text."""
    return choice if choice is None or isinstance(choice, str | int | float | bool) else json.dumps(choice)


def as_values(tune: TuneConfig, params: dict[str, Scalar]) -> dict[str, JsonValue]:
    """Optuna's parameters as the configuration takes them, in the space's order."""
    values: dict[str, JsonValue] = {}
    for key, dimension in tune.space.items():
        if key in params and isinstance(dimension, Choice):
            values[key] = next(choice for choice in dimension.choices if as_scalar(choice) == params[key])
        elif key in params:
            values[key] = params[key]
    return values


def start_of(tune: TuneConfig, config: Config) -> dict[str, Scalar]:
    """What the configuration has at the keys of the space, as Optuna takes it; without what is no choice there."""
    found: dict[str, Scalar] = {}
    for key, dimension in tune.space.items():
        value: Any = config.model_dump(mode="json")
        for part in key.split("."):
            value = value[part]
        if not isinstance(dimension, Choice):
            found[key] = value
        elif value in dimension.choices:
            # The choice as it is written: the configuration may hold the same as 1.0.
            found[key] = as_scalar(dimension.choices[dimension.choices.index(value)])
    return found
