"""What is asked of the Predictor, slice by slice, and what it says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from slicewise.errors import InputError
from slicewise.inference.calibration import Decision
from slicewise.inference.explain import EXPLAIN_METHODS, ExplainMethod
from slicewise.inference.slice_uncertainty import UncertaintyScores

TASKS = ("classify", "segment", "explain", "uncertainty")
MAX_MC_SAMPLES = 50


@dataclass(frozen=True)
class SliceInput:
    """One slice to predict.

    Attributes:
        image: ``[C, H, W]`` raw intensities.
        modalities: The channels' names; ``unknown`` where it is not known.
        pixel_mm: Row and column spacing in mm.
    """

    image: NDArray[np.generic]
    modalities: tuple[str, ...]
    pixel_mm: tuple[float, float] = (1.0, 1.0)


@dataclass(frozen=True)
class PredictOptions:
    """What is asked for.

    Attributes:
        tasks: Some of ``TASKS``.
        threshold: Decision threshold on the calibrated probability; None takes the bundle's.
        conditional: Run the decoder only for the slices whose probability reaches the threshold.
        n_mc_samples: Monte-Carlo dropout samples for ``uncertainty``, in all.
        use_tta: Share them between the slice and its mirror image, for one more encoder pass.
        explain_method: How ``explain`` is done: one of ``EXPLAIN_METHODS``.
    """

    tasks: tuple[str, ...] = ("classify", "segment")
    threshold: float | None = None
    conditional: bool = False
    n_mc_samples: int = 10
    use_tta: bool = False
    explain_method: ExplainMethod = "gradcam"

    def __post_init__(self) -> None:
        unknown = [task for task in self.tasks if task not in TASKS]
        if unknown or not self.tasks:
            raise InputError(f"tasks: {unknown or 'none given'}", f"use some of {', '.join(TASKS)}")
        if self.threshold is not None and not 0.0 <= self.threshold <= 1.0:
            raise InputError(f"threshold: {self.threshold} is not a probability", "use a number from 0 to 1")
        if not 1 <= self.n_mc_samples <= MAX_MC_SAMPLES:
            raise InputError(f"n_mc_samples: {self.n_mc_samples}", f"use 1 to {MAX_MC_SAMPLES}")
        if self.explain_method not in EXPLAIN_METHODS:
            raise InputError(f"explain_method: {self.explain_method!r}", f"use one of {', '.join(EXPLAIN_METHODS)}")


@dataclass(frozen=True)
class Prediction:
    """What the model says of one slice; maps are in the slice's own pixels.

    Attributes:
        tumor_probability: Calibrated probability that the slice shows tumour.
        tumor_label: Whether it reaches the threshold.
        threshold: The threshold used.
        mask: ``[3, H, W]`` uint8 (WT, TC, ET), 0 or 1; None when not asked for.
        region_probability: ``[3, H, W]`` float32, calibrated; None when not asked for.
        decoded: Whether the decoder ran for this slice (``conditional`` leaves it out below the threshold,
            the mask is then empty).
        gradcam: ``[H, W]`` float32 in 0..1, inside the head: Grad-CAM, or the map of the method asked for; None when
            not asked for.
        uncertainty: ``[H, W]`` float32, predictive entropy of WT in nats; None when not asked for.
        epistemic: ``[H, W]`` its epistemic part: mutual information.
        aleatoric: ``[H, W]`` its aleatoric part: expected entropy.
        uncertainty_scores: Uncertainty of the probability of tumour, and of the map as a whole.
        trained_regions: The regions that the model was taught; the others' maps are empty.
        decision: ``tumour``, ``no_tumour`` or ``unsure``: the label, where the band of the calibration is sure of it.
        ood_score: How unlike the training slices this one is, 0 (typical) to 1; None where the bundle has no score.
        ood_flag: Whether that is above the bundle's threshold.
        ood_parts: What is unusual: the parts of ``slicewise.inference.ood``, 0 for typical.
        timings_ms: Milliseconds of each phase, of the whole batch.
    """

    tumor_probability: float
    tumor_label: bool
    threshold: float
    mask: NDArray[np.uint8] | None = None
    region_probability: NDArray[np.float32] | None = None
    decoded: bool = False
    gradcam: NDArray[np.float32] | None = None
    uncertainty: NDArray[np.float32] | None = None
    epistemic: NDArray[np.float32] | None = None
    aleatoric: NDArray[np.float32] | None = None
    uncertainty_scores: UncertaintyScores | None = None
    trained_regions: tuple[str, ...] = ()
    decision: Decision = "unsure"
    ood_score: float | None = None
    ood_flag: bool | None = None
    ood_parts: Mapping[str, float] = field(default_factory=dict)
    timings_ms: dict[str, float] = field(default_factory=dict)
