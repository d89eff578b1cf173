"""The configuration: frozen, validated once, merged from YAML layers.

Layers, later ones winning: ``configs/base.yaml``, ``configs/modes/<mode>.yaml``, ``--config FILE``, ``--set a.b=c``.
Each section goes to the stages that need it and to no other, so that a changed gate threshold, say, does not
make preprocessing run again.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from slicewise.errors import ConfigError

Modality = Literal["flair", "t1", "t1ce", "t2"]
MODALITIES: tuple[str, ...] = ("flair", "t1", "t1ce", "t2")
REGIONS = ("WT", "TC", "ET")
STAGES = ("seg_warmup", "cls_head", "joint")

StageName = Literal["seg_warmup", "cls_head", "joint"]
Preset = Literal["small", "medium", "large"]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Count = Annotated[int, Field(ge=1)]
S = TypeVar("S", bound="Section")


class Section(BaseModel):
    """Base of every section: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class PhantomConfig(Section):
    """Synthetic studies made by the source ``phantom``."""

    n_studies: Annotated[int, Field(ge=3)] = 40
    shape: tuple[Count, Count, Count] = (96, 96, 40)
    spacing_mm: tuple[Positive, Positive, Positive] = (2.0, 2.0, 3.5)
    healthy_share: Share = 0.25


class DownloadConfig(Section):
    """How sources become a dataset folder."""

    phantom: PhantomConfig = PhantomConfig()
    max_studies: Count | None = None


class SliceConfig(Section):
    """What one slice goes through; stored in the bundle, so that serving does the same to the last bit.

    Attributes:
        modalities: The network's input channels, in order.
        size: Height and width of the network's input in pixels; a multiple of 16.
        clip: z-scores are clipped to ±clip.
        foreground_fraction: Pixels above this fraction of the slice's robust maximum are head or brain.
        crop_margin: The crop's side over the foreground's longer side.
        min_crop_fraction: The crop's side is at least this fraction of the frame's longer side, so that the
            small slices at the top of the head are not blown up.
        unknown_modality: The channel by which an image of unknown modality enters.
    """

    modalities: tuple[Modality, ...] = ("flair", "t1", "t1ce", "t2")
    size: Annotated[int, Field(ge=32, le=1024, multiple_of=16)] = 96
    clip: Positive = 5.0
    foreground_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.05
    crop_margin: Annotated[float, Field(ge=1.0, le=2.0)] = 1.06
    min_crop_fraction: Share = 0.6
    unknown_modality: Modality = "flair"

    @model_validator(mode="after")
    def _distinct(self) -> SliceConfig:
        if len(set(self.modalities)) != len(self.modalities) or not self.modalities:
            raise ValueError("modalities must be a non-empty list without repeats")
        if self.unknown_modality not in self.modalities:
            raise ValueError(f"unknown_modality {self.unknown_modality!r} is not among modalities")
        return self


class PreprocessConfig(Section):
    """From studies to the slice store.

    Attributes:
        slice: What each slice goes through.
        min_foreground: Slices with a smaller share of foreground pixels are left out as empty.
        min_tumour_pixels: Slices with fewer tumour pixels (but some) have no class label: too little to call.
        train_slices: How many slices of a study are selected for training.
        tumour_share: The share of tumour slices among them, as far as the study has them.
        max_failed_share: The stage fails when a larger share of the studies is unusable.
        workers: Processes; 0 takes one per core.
    """

    slice: SliceConfig = SliceConfig()
    min_foreground: Share = 0.03
    min_tumour_pixels: Count = 20
    train_slices: Count = 16
    tumour_share: Share = 0.6
    max_failed_share: Share = 0.2
    workers: Annotated[int, Field(ge=0)] = 0


class SplitConfig(Section):
    """Train, validation and test, by patient group."""

    fractions: tuple[Share, Share, Share] = (0.70, 0.15, 0.15)
    near_duplicate_correlation: Share = 0.985
    aliases: dict[str, tuple[str, ...]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _sum_to_one(self) -> SplitConfig:
        if abs(sum(self.fractions) - 1.0) > 1e-6 or min(self.fractions) <= 0:
            raise ValueError("fractions must be three positive shares that sum to 1")
        return self


class ModelConfig(Section):
    """The multi-task U-Net."""

    preset: Preset = "small"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1


class AugmentConfig(Section):
    """Random changes of a training batch."""

    flip: Share = 0.5
    rotate_degrees: Annotated[float, Field(ge=0, le=180)] = 12.0
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.12
    intensity: Annotated[float, Field(ge=0, lt=1)] = 0.15
    noise: Annotated[float, Field(ge=0, le=1)] = 0.05
    modality_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.25


class StageConfig(Section):
    """One training stage.

    Attributes:
        epochs: At most so many passes.
        min_steps: A small set gets more epochs, until there are so many optimiser steps.
        lr: Peak learning rate of the decoder and the head.
        encoder_lr_factor: The encoder's learning rate over ``lr``; 0 freezes it.
        tasks: Which losses take part.
        monitor: The validation figure whose best epoch is kept.
        patience: Stop after so many epochs without a better figure.
    """

    epochs: Count
    min_steps: Annotated[int, Field(ge=0)] = 0
    lr: Positive = 1e-3
    encoder_lr_factor: Share = 1.0
    tasks: tuple[Literal["segment", "classify"], ...]
    monitor: Literal["dice", "auc", "combined"]
    patience: Count = 10


class TrainConfig(Section):
    """What the three stages share, and the stages."""

    batch_size: Count = 16
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    grad_clip: Positive = 1.0
    warmup_share: Share = 0.1
    lambda_seg: Annotated[float, Field(ge=0)] = 1.0
    lambda_cls: Annotated[float, Field(ge=0)] = 0.5
    augment: AugmentConfig = AugmentConfig()
    seg_warmup: StageConfig
    cls_head: StageConfig
    joint: StageConfig

    def stage(self, name: StageName) -> StageConfig:
        """The configuration of one stage."""
        return {"seg_warmup": self.seg_warmup, "cls_head": self.cls_head, "joint": self.joint}[name]


class CalibrateConfig(Section):
    """Temperature and decision threshold, fitted on the validation split."""

    folds: Annotated[int, Field(ge=2)] = 5
    n_bins: Annotated[int, Field(ge=2)] = 10
    threshold_rule: Literal["youden", "sensitivity"] = "youden"
    target_sensitivity: Share = 0.95


class EvaluateConfig(Section):
    """The test split, judged once."""

    bootstrap: Annotated[int, Field(ge=100)] = 1000
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    n_bins: Annotated[int, Field(ge=2)] = 10
    batch_size: Count = 32


class GateConfig(Section):
    """Least (``min_``) and greatest (``max_``) acceptable test figures; null or left out is not judged."""

    min_roc_auc: Share | None = None
    min_sensitivity: Share | None = None
    min_dice_wt: Share | None = None
    max_ece: Share | None = None


class ServeConfig(Section):
    """The served model; port 0 takes a free one."""

    model_name: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")] = "slicewise"
    gateway_port: Annotated[int, Field(ge=0, le=65535)] = 0
    gateway_grpc_port: Annotated[int, Field(ge=0, le=65535)] = 0
    torchserve_port: Annotated[int, Field(ge=0, le=65535)] = 0
    workers: Count = 1
    batch_size: Count = 8
    max_batch_delay_ms: Annotated[int, Field(ge=0)] = 20
    max_request_mb: Count = 256
    timeout_s: Count = 120
    namespace: str = "slicewise"
    storage_uri: str = ""


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
    inside = Path(__file__).parent / "configs"
    return inside if inside.is_dir() else Path(__file__).parents[1] / "configs"


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
        raise ConfigError(f"unknown mode {mode!r}{_near(mode, modes())}", f"use one of {', '.join(modes())}")
    merged = _read_yaml(config_folder() / "base.yaml")
    merged = _merge(merged, _read_yaml(config_folder() / "modes" / f"{mode}.yaml"))
    if file is not None:
        merged = _merge(merged, _read_yaml(file))
    for word in overrides:
        merged = _merge(merged, _parse_override(word))
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
            raise ConfigError(f"unknown key {key!r}{_near(str(first['loc'][-1]), known)}", cure) from error
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


def _near(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f", did you mean {close[0]!r}?" if close else ""


def _read_yaml(path: Path) -> dict[str, Any]:
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


def _parse_override(word: str) -> dict[str, Any]:
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


def _merge(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in top.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged
