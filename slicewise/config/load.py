"""Merging the YAML layers and validating the result."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, Field, ValidationError

from slicewise.config.base import Section
from slicewise.config.download import DownloadConfig
from slicewise.config.gate import GateConfig
from slicewise.config.judge import CalibrateConfig, EvaluateConfig
from slicewise.config.model import ModelConfig
from slicewise.config.preprocess import PreprocessConfig
from slicewise.config.serve import ServeConfig
from slicewise.config.split import SplitConfig
from slicewise.config.train import TrainConfig
from slicewise.errors import ConfigError

S = TypeVar("S", bound=Section)


class Config(Section):
    """Everything one run is made of."""

    mode: str
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    download: DownloadConfig = DownloadConfig()
    preprocess: PreprocessConfig = PreprocessConfig()
    split: SplitConfig = SplitConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig
    calibrate: CalibrateConfig = CalibrateConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    gate: GateConfig = GateConfig()
    serve: ServeConfig = ServeConfig()

    def section(self, name: str) -> dict[str, Any]:
        """One section as plain data, without the keys that are null: KFP parameters know no null."""
        section: Section = getattr(self, name)
        return section.model_dump(mode="json", exclude_none=True)


def config_folder() -> Path:
    """The folder of the YAML layers: beside the package in a checkout, inside it when installed."""
    inside = Path(__file__).parents[1] / "configs"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "configs"


def modes() -> list[str]:
    """The names of the modes that come with SliceWise."""
    return sorted(path.stem for path in (config_folder() / "modes").glob("*.yaml"))


def load_config(mode: str = "smoke", file: Path | None = None, overrides: Iterable[str] = ()) -> Config:
    """Merge the layers and validate the result.

    Args:
        mode: One of ``modes()``.
        file: A YAML file with the keys to change.
        overrides: ``a.b=value`` words; the value is read as YAML.

    Raises:
        ConfigError: An unknown mode or key, a value out of range, or a file that is not YAML; names it.
    """
    if mode not in modes():
        raise ConfigError(f"unknown mode {mode!r}{near(mode, modes())}", f"use one of {', '.join(modes())}")
    merged = read_yaml(config_folder() / "base.yaml")
    merged = merge(merged, read_yaml(config_folder() / "modes" / f"{mode}.yaml"))
    if file is not None:
        merged = merge(merged, read_yaml(file))
    for word in overrides:
        merged = merge(merged, parse_override(word))
    merged["mode"] = mode
    return validate(Config, merged)


def validate(model: type[S], value: Mapping[str, Any]) -> S:
    """Validate a mapping into a section.

    Raises:
        ConfigError: Names the first wrong key, what is wrong, and the keys allowed there.
    """
    try:
        return model.model_validate(dict(value))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "configuration"
        if first["type"] == "extra_forbidden":
            known = _known_keys(model, first["loc"][:-1])
            cure = f"known keys here: {', '.join(known)}" if known else ""
            raise ConfigError(f"unknown key {key!r}{near(str(first['loc'][-1]), known)}", cure) from error
        given = "" if first["type"] == "missing" else f" (given {str(first['input'])[:80]!r})"
        raise ConfigError(f"{key}: {first['msg']}{given}", "correct this key in the file or --set") from error


def _known_keys(model: type[BaseModel], path: Iterable[int | str]) -> list[str]:
    """The keys that ``model`` knows below ``path``."""
    for part in path:
        field = model.model_fields.get(str(part))
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            return []
        model = field.annotation
    return sorted(model.model_fields)


def near(word: str, known: Iterable[str]) -> str:
    """Words that propose the known name closest to ``word``, or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f", did you mean {close[0]!r}?" if close else ""


def read_yaml(path: Path) -> dict[str, Any]:
    """One layer of the configuration.

    Raises:
        ConfigError: The file cannot be read, or is no YAML mapping.
    """
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}", "check the path") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path} is not YAML: {reason}", "correct the file") from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{path} holds a {type(value).__name__}", "write it as 'key: value' lines")
    return value


def parse_override(word: str) -> dict[str, Any]:
    """``a.b=value`` as nested mappings.

    Raises:
        ConfigError: It has no ``=``, or the value is not YAML.
    """
    key, equals, text = word.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {word!r} has no '='", "write it as --set key=value, e.g. --set seed=1")
    try:
        nested: Any = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {key}: {text!r} is not a YAML value", "quote the value") from error
    for part in reversed(key.strip().split(".")):
        nested = {part: nested}
    return dict(nested)


def merge(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with the keys that ``top`` names, at any depth."""
    merged = dict(base)
    for key, value in top.items():
        below = merged.get(key)
        merged[key] = merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged
