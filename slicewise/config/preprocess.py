"""The section ``preprocess``: from studies to the slice store."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, model_validator

from slicewise.config.base import Count, Modality, Positive, Section, Share

Plane = Literal["axial", "coronal", "sagittal"]
Normalisation = Literal["zscore", "minmax", "percentile", "nyul"]
# The quantiles of a standard normal distribution at NYUL_SHARES.
STANDARD_SCALE = (-2.326, -1.282, -0.842, -0.524, -0.253, 0.0, 0.253, 0.524, 0.842, 1.282, 2.326)


class SliceConfig(Section):
    """What one slice goes through; stored in the bundle, so that serving does the same to the last bit.

    Attributes:
        modalities: The network's input channels, in order.
        size: Height and width of the network's input in pixels; a multiple of 16.
        plane: Which way a volume is cut.
        normalisation: ``zscore`` (mean and deviation of the head, outliers clipped first), ``minmax`` (the head's
            extremes to 0 and 1), ``percentile`` (two quantiles to 0 and 1) or ``nyul`` (piecewise linear from the
            head's deciles to ``standard_scale``; Nyúl and Udupa, Magn. Reson. Med. 1999).
        clip: z-scores, and what ``nyul`` gives, are clipped to ±clip.
        percentiles: For ``percentile``: the shares that become 0 and 1; beyond them values are clipped.
        outliers: For ``zscore``: values below the first and above the second quantile count as that quantile, so
            that a few spikes do not flatten everything else.
        standard_scale: For ``nyul``: where the quantiles 1 %, 10 %, 20 % … 90 %, 99 % go, rising. The default is
            the normal distribution's, which needs no data and so cannot leak any; a scale learned on training
            studies can be given instead.
        crop: ``brain`` cuts a square around the head, ``frame`` keeps the whole frame.
        foreground_fraction: Pixels above this fraction of the slice's robust range are head or brain.
        crop_margin: The crop's side over the foreground's longer side.
        min_crop_fraction: The crop's side is at least this fraction of the frame's longer side, so that the
            small slices at the top of the head are not blown up.
        unknown_modality: The channel by which an image of unknown modality enters.
    """

    modalities: tuple[Modality, ...] = ("flair", "t1", "t1ce", "t2")
    size: Annotated[int, Field(ge=32, le=1024, multiple_of=16)] = 96
    plane: Plane = "axial"
    normalisation: Normalisation = "zscore"
    clip: Positive = 5.0
    percentiles: tuple[Share, Share] = (0.01, 0.99)
    outliers: tuple[Share, Share] = (0.005, 0.995)
    standard_scale: Annotated[tuple[float, ...], Field(min_length=11, max_length=11)] = STANDARD_SCALE
    crop: Literal["brain", "frame"] = "brain"
    foreground_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
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

    @model_validator(mode="after")
    def _rising(self) -> SliceConfig:
        for name in ("percentiles", "outliers", "standard_scale"):
            if not all(low < high for low, high in pairwise(getattr(self, name))):
                raise ValueError(f"{name} must rise")
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
        shards: Into how many tasks the pipeline divides the stage; 1 keeps it whole. A pipeline has its shards from
            when it was compiled; the verb ``preprocess`` never divides.
    """

    slice: SliceConfig = SliceConfig()
    min_foreground: Share = 0.03
    min_tumour_pixels: Count = 20
    train_slices: Count = 16
    tumour_share: Share = 0.6
    max_failed_share: Share = 0.2
    workers: Annotated[int, Field(ge=0)] = 0
    shards: Annotated[int, Field(ge=1, le=256)] = 1
