"""The search's own file: what ``slicewise tune`` tries, and how it judges (``configs/tune.yaml``)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    Discriminator,
    Field,
    JsonValue,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from slicewise.config.base import STAGES, Count, Positive, Section, StageName
from slicewise.config.load import Config, config_folder, merge, near, read_yaml, validate
from slicewise.errors import ConfigError

SEARCHED = ("model", "train")


class Range(Section):
    """All numbers from ``low`` to ``high``; whole ones where the key takes no others.

    Attributes:
        low: The least value.
        high: The greatest.
        log: Equal ratios are equally likely, not equal differences.
    """

    low: int | float
    high: int | float
    log: bool = False

    @model_validator(mode="after")
    def _rises(self) -> Range:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError("low must be below high")
        if self.log and self.low <= 0:
            raise ValueError("a range with log needs low above 0")
        return self


class Choice(Section):
    """Any of a list of values."""

    choices: Annotated[tuple[JsonValue, ...], Field(min_length=1)]

    @field_validator("choices")
    @classmethod
    def _differ(cls, choices: tuple[JsonValue, ...]) -> tuple[JsonValue, ...]:
        if len({repr(choice) for choice in choices}) < len(choices):
            raise ValueError("a choice is named twice")
        return choices


def _kind(value: Any) -> str:
    return "choices" if isinstance(value, Choice) or (isinstance(value, dict) and "choices" in value) else "range"


Dimension = Annotated[Annotated[Range, Tag("range")] | Annotated[Choice, Tag("choices")], Discriminator(_kind)]


class TuneConfig(Section):
    """One search.

    Attributes:
        trials: How many trials are to be ended in all, over all calls; failed and pruned ones count.
        timeout_minutes: How long one call may take; the trial under way is then put aside for the next call.
        stages: What each trial trains; the last one's best validation figure is the trial's score.
        sampler: ``tpe`` learns from the trials so far; ``random`` does not.
        pruner: ``median`` ends a trial whose best figure is below the median of the others at that epoch.
        pruner_trials: Finished trials before any is pruned.
        pruner_epochs: Epochs of the last stage before a trial may be pruned.
        keep: Whose trained weights stay on the disk.
        space: Dotted key of ``model`` or ``train`` → what may stand there.
    """

    trials: Count = 20
    timeout_minutes: Positive | None = None
    stages: Annotated[tuple[StageName, ...], Field(min_length=1)] = ("seg_warmup", "cls_head", "joint")
    sampler: Literal["tpe", "random"] = "tpe"
    pruner: Literal["median", "none"] = "median"
    pruner_trials: Count = 5
    pruner_epochs: Annotated[int, Field(ge=0)] = 1
    keep: Literal["best", "all"] = "best"
    space: Annotated[dict[str, Dimension], Field(min_length=1)]

    @field_validator("stages")
    @classmethod
    def _in_order(cls, stages: tuple[StageName, ...]) -> tuple[StageName, ...]:
        if list(stages) != [stage for stage in STAGES if stage in stages]:
            raise ValueError(f"name each stage once, in the order {', '.join(STAGES)}")
        return stages


def load_tune(file: Path | None = None, changes: Mapping[str, Any] | None = None) -> TuneConfig:
    """Read the search's file.

    Args:
        file: Default: ``configs/tune.yaml``.
        changes: Keys that stand above the file's; None is no change.

    Raises:
        ConfigError: It cannot be read, or a key or value in it is wrong; names it.
    """
    given = {key: value for key, value in (changes or {}).items() if value is not None}
    return validate(TuneConfig, {**read_yaml(file or config_folder() / "tune.yaml"), **given})


def check_space(tune: TuneConfig, config: Config) -> None:
    """Hold every key and every end of the space against the configuration, before anything is trained.

    Raises:
        ConfigError: Names the first key that is unknown, changes what a score means, or takes no such value.
    """
    known = [key for name in SEARCHED for key in _leaves(type(getattr(config, name)), name)]
    for key, dimension in tune.space.items():
        _check_key(key, known, tune.stages)
        values = dimension.choices if isinstance(dimension, Choice) else (dimension.low, dimension.high)
        for value in values:
            reason = _fault(config, key, value)
            if reason:
                raise ConfigError(f"space: {key}: {reason} (given {value!r})", "correct the space")


def takes_whole_numbers(config: Config, key: str, dimension: Range) -> bool:
    """Whether a key takes nothing between two whole numbers.

    Raises:
        ConfigError: It does not, and the range has a broken end.
    """
    middle = dimension.low + (dimension.high - dimension.low) / 2
    reason = _fault(config, key, middle if middle % 1 else middle + min(0.5, dimension.high - middle) / 2)
    if reason and not all(float(end).is_integer() for end in (dimension.low, dimension.high)):
        raise ConfigError(f"space: {key}: {reason}", "give whole numbers as low and high")
    return bool(reason)


def nested(params: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys as a tree, the way a configuration file has them."""
    tree: dict[str, Any] = {}
    for key, value in params.items():
        for part in reversed(key.split(".")):
            value = {part: value}
        tree = merge(tree, value)
    return tree


def _check_key(key: str, known: list[str], stages: tuple[StageName, ...]) -> None:
    section, _, rest = key.partition(".")
    if section not in SEARCHED and section in Config.model_fields:
        raise ConfigError(
            f"space: {key!r} is outside {' and '.join(SEARCHED)}",
            "all trials share one store, one split and one seed",
        )
    if key not in known:
        below = [other for other in known if other.startswith(f"{key}.")]
        cure = f"name one of {', '.join(below)}" if below else "docs/tuning.md says which keys can be searched"
        raise ConfigError(f"space: unknown key {key!r}{near(key, known)}", cure)
    stage = rest.split(".")[0]
    if section == "train" and stage in STAGES and stage not in stages:
        raise ConfigError(f"space: {key!r}: no trial trains {stage}", "add it to 'stages' or take the key out")
    if key in (f"train.{stages[-1]}.monitor", f"train.{stages[-1]}.tasks"):
        raise ConfigError(f"space: {key!r} would change what a score means", "set it for all trials with --set")


def _leaves(model: type[BaseModel], prefix: str) -> list[str]:
    """The dotted keys of a section that hold values."""
    found: list[str] = []
    for name, field in model.model_fields.items():
        inner, key = field.annotation, f"{prefix}.{name}"
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            found += _leaves(inner, key)
        else:
            found.append(key)
    return found


def _fault(config: Config, key: str, value: Any) -> str:
    """Why the configuration refuses ``value`` at ``key``, or an empty string.

    What only goes against another key is no fault: a trial may draw the two together so that they fit.
    """
    try:
        Config.model_validate(merge(config.model_dump(), nested({key: value})))
    except ValidationError as error:
        for fault in error.errors():
            place = ".".join(map(str, fault["loc"]))
            if place == key or place.startswith(f"{key}."):
                return str(fault["msg"])
    return ""
