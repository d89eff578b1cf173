"""The section ``train.augment``: random changes of a training batch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from slicewise.config.base import Section, Share

AugmentPreset = Literal["none", "minimal", "moderate", "aggressive"]

# The strengths of each preset; what a preset does not name is off.
AUGMENT_PRESETS: dict[str, dict[str, float]] = {
    "none": {},
    "minimal": {
        "flip": 0.5,
        "rotate_share": 0.8,
        "rotate_degrees": 12.0,
        "scale_share": 0.8,
        "scale": 0.12,
        "brightness_share": 0.8,
        "brightness": 0.15,
        "contrast_share": 0.8,
        "contrast": 0.15,
        "noise_share": 0.3,
        "noise": 0.1,
        "modality_dropout": 0.25,
    },
    "moderate": {
        "flip": 0.5,
        "rotate_share": 0.8,
        "rotate_degrees": 15.0,
        "scale_share": 0.8,
        "scale": 0.15,
        "elastic_share": 0.25,
        "elastic": 0.02,
        "brightness_share": 0.6,
        "brightness": 0.2,
        "contrast_share": 0.6,
        "contrast": 0.2,
        "gamma_share": 0.3,
        "gamma": 0.3,
        "bias_share": 0.3,
        "bias": 0.3,
        "blur_share": 0.15,
        "blur": 1.0,
        "noise_share": 0.3,
        "noise": 0.12,
        "modality_dropout": 0.25,
    },
    "aggressive": {
        "flip": 0.5,
        "rotate_share": 0.9,
        "rotate_degrees": 30.0,
        "scale_share": 0.9,
        "scale": 0.25,
        "elastic_share": 0.5,
        "elastic": 0.035,
        "brightness_share": 0.8,
        "brightness": 0.3,
        "contrast_share": 0.8,
        "contrast": 0.3,
        "gamma_share": 0.5,
        "gamma": 0.5,
        "bias_share": 0.5,
        "bias": 0.5,
        "blur_share": 0.3,
        "blur": 1.5,
        "noise_share": 0.5,
        "noise": 0.2,
        "modality_dropout": 0.35,
    },
}


class AugmentConfig(Section):
    """Random changes of a training batch: a preset, and any of its strengths changed by name.

    A ``…_share`` is the share of slices (of single modalities, for what changes intensities) that a change
    touches; the key without it is the largest strength, drawn uniformly up to there. Either at 0 is off.

    Attributes:
        preset: Where every key not named comes from.
        flip: Share of slices mirrored left to right.
        rotate_degrees: Turn to either side.
        scale: Zoom in or out by up to this fraction.
        elastic: Displacement of tissue, as a fraction of the slice's side.
        brightness: Shift, in standard deviations of the head.
        contrast: Stretch about the head's mean, as a fraction.
        gamma: Exponent from 1/(1 + gamma) to 1 + gamma on the head's own range.
        bias: Largest exponent of the smooth field that multiplies the head's signal.
        blur: Standard deviation in pixels.
        noise: Standard deviation, in standard deviations of the head.
        modality_dropout: Share of modalities withheld, never a slice's last.
    """

    preset: AugmentPreset = "minimal"
    flip: Share = 0.0
    rotate_share: Share = 0.0
    rotate_degrees: Annotated[float, Field(ge=0, le=180)] = 0.0
    scale_share: Share = 0.0
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.0
    elastic_share: Share = 0.0
    elastic: Annotated[float, Field(ge=0, le=0.05)] = 0.0
    brightness_share: Share = 0.0
    brightness: Annotated[float, Field(ge=0, le=2)] = 0.0
    contrast_share: Share = 0.0
    contrast: Annotated[float, Field(ge=0, lt=1)] = 0.0
    gamma_share: Share = 0.0
    gamma: Annotated[float, Field(ge=0, le=3)] = 0.0
    bias_share: Share = 0.0
    bias: Annotated[float, Field(ge=0, le=2)] = 0.0
    blur_share: Share = 0.0
    blur: Annotated[float, Field(ge=0, le=4)] = 0.0
    noise_share: Share = 0.0
    noise: Annotated[float, Field(ge=0, le=2)] = 0.0
    modality_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @model_validator(mode="before")
    @classmethod
    def _from_preset(cls, given: Any) -> Any:
        """Fill what is not given from the preset; a wrong preset is left to the field's own check."""
        if not isinstance(given, dict):
            return given
        chosen = given.get("preset", "minimal")
        preset = AUGMENT_PRESETS.get(chosen, {}) if isinstance(chosen, str) else {}
        return {**preset, **given}
