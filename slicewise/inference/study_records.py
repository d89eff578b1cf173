"""What a study's prediction needs of a bundle, and what it says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from slicewise.config import REGIONS, PreprocessConfig, SliceConfig
from slicewise.errors import InputError
from slicewise.inference.bundle import BundleMeta
from slicewise.inference.calibration import Calibration, Decision
from slicewise.inference.measures import StudyMeasures
from slicewise.inference.postprocess import PostProcess


class StudySettings(BaseModel):
    """What of a bundle a study needs; ``model_validate`` takes the content of ``bundle.json`` as it is.

    Attributes:
        preprocessing: How a slice is prepared: here, where its head is, and along which plane volumes are cut.
        calibration: Threshold, band, and the regions' threshold.
        postprocess: Done to the stack of masks.
        trained_regions: The regions that the model was taught; the others' masks are empty.
        min_foreground: Slices with a smaller share of head are left out, as the slice store does by default.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    preprocessing: SliceConfig
    calibration: Calibration = Calibration()
    postprocess: PostProcess = PostProcess()
    trained_regions: tuple[str, ...] = REGIONS
    min_foreground: float = PreprocessConfig().min_foreground

    @classmethod
    def of(cls, meta: BundleMeta) -> StudySettings:
        """Those of a bundle."""
        return cls(
            preprocessing=meta.preprocessing,
            calibration=meta.calibration,
            postprocess=meta.postprocess,
            trained_regions=meta.trained_regions,
        )

    @property
    def needs_probability(self) -> bool:
        """Whether each slice's ``region_probability`` is needed, its mask not being enough.

        A slice's own mask has been post-processed in its plane, which is not a step on the way to doing so in space.
        """
        return not self.postprocess.is_identity


@dataclass(frozen=True)
class SliceRecord:
    """What is said of one slice of a study; all None where it has no head, or failed.

    Attributes:
        index: From 0, along the plane that the model sees: inferior to superior for axial slices.
        tumor_probability: Calibrated.
        tumor_label: Whether it reaches the threshold.
        decision: ``tumour``, ``no_tumour`` or ``unsure``.
        area_mm2: Region → area of the study's final mask in this slice; None where the spacing is unknown.
        ood_score: How unlike the training slices it is, 0 to 1; None where the bundle has no score.
        ood_flag: Whether that is above the bundle's threshold.
        mean_uncertainty: Mean predictive entropy of WT over the head in nats; None when not asked for.
        error: Why this slice alone failed.
    """

    index: int
    tumor_probability: float | None = None
    tumor_label: bool | None = None
    decision: Decision | None = None
    area_mm2: Mapping[str, float] | None = None
    ood_score: float | None = None
    ood_flag: bool | None = None
    mean_uncertainty: float | None = None
    error: InputError | None = None


@dataclass(frozen=True)
class StudyPrediction:
    """What the model says of one study; volumes are in the study's own voxels, in the order of ``Study.channels``.

    Attributes:
        tumor_probability: Calibrated, of the patient: the highest of the slices', as evaluation judges it.
        tumor_label: Whether it reaches the threshold.
        threshold: The threshold used.
        decision: ``tumour``, ``no_tumour`` or ``unsure``.
        slices: One record for each slice, in order.
        mask: ``[3, Z, H, W]`` uint8 (WT, TC, ET), 0 or 1, post-processed; None when not asked for.
        region_probability: ``[3, Z, H, W]`` float32, calibrated; None when not asked for.
        uncertainty: ``[Z, H, W]`` float32, predictive entropy of WT in nats; None when not asked for.
        gradcam: ``[Z, H, W]`` float32 in 0..1, each slice scaled to its own peak; None when not asked for.
        measures: Volumes, diameters, side; None without a mask, or where the spacing is unknown.
        ood_share: Share of the predicted slices that are flagged; None where the bundle has no score.
        trained_regions: The regions that the model was taught.
        modalities: Of the study, those that the model was shown.
        timings_ms: Milliseconds of each phase.
    """

    tumor_probability: float
    tumor_label: bool
    threshold: float
    decision: Decision
    slices: tuple[SliceRecord, ...]
    mask: NDArray[np.uint8] | None
    region_probability: NDArray[np.float32] | None
    uncertainty: NDArray[np.float32] | None
    gradcam: NDArray[np.float32] | None
    measures: StudyMeasures | None
    ood_share: float | None
    trained_regions: tuple[str, ...]
    modalities: tuple[str, ...]
    timings_ms: Mapping[str, float] = field(default_factory=dict)

    @property
    def failures(self) -> tuple[SliceRecord, ...]:
        """The slices that failed."""
        return tuple(record for record in self.slices if record.error is not None)


def patient_probability(slices: Sequence[float] | NDArray[np.float32]) -> float:
    """The patient's probability of tumour from the slices': the highest, as one slice with tumour is enough."""
    return float(np.max(slices))
