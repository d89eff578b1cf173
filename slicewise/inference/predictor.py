"""The Predictor: preprocessing, one encoder pass, calibration, and maps in the slice's own pixels.

The same object runs behind TorchServe, inside the gateway, in ``slicewise predict`` and in evaluation.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from slicewise.config import REGIONS
from slicewise.errors import InputError
from slicewise.inference.bundle import Bundle, load_bundle
from slicewise.inference.calibration import Decision
from slicewise.inference.explain import EXPLAIN_METHODS, ExplainMethod, explain, trace_features
from slicewise.inference.ood import OodScore
from slicewise.inference.restore import restore_regions, trained_mask
from slicewise.inference.sampling import Member, Samples, SamplingPlan, draw_samples
from slicewise.inference.slice_statistics import pool_features
from slicewise.inference.slice_uncertainty import UncertaintyScores, describe_uncertainty
from slicewise.model.device import choose_device, place_image, place_network
from slicewise.slices.crop import restore_map
from slicewise.slices.transform import PreparedSlice, compile_loops, prepare_slice

TASKS = ("classify", "segment", "explain", "uncertainty")
MAX_MC_SAMPLES = 50
WT = REGIONS.index("WT")


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


@dataclass
class _Raw:
    """Network outputs of a batch, as arrays at the network's size."""

    tumour: NDArray[np.float32]
    regions: dict[int, NDArray[np.float32]]
    explained: NDArray[np.float32] | None
    samples: Samples | None
    sampled: list[int]
    ood: list[OodScore] | None


class Predictor:
    """A verified bundle, ready to predict.

    Args:
        bundle: The bundle.
        device: A torch device name; ``auto`` takes CUDA where it is there.
        threads: CPU threads for torch; None leaves torch's default.
    """

    def __init__(self, bundle: Bundle, device: str = "auto", threads: int | None = None) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self.device = choose_device(device)
        self.bundle = bundle
        self.meta = bundle.meta
        self.network = place_network(bundle.network(), self.device)
        self._ood = bundle.ood(self.network)
        self._trained = trained_mask(bundle.meta.trained_regions)
        for parameter in self.network.parameters():
            parameter.requires_grad_(False)

    @classmethod
    def load(cls, folder: Path, device: str = "auto", threads: int | None = None) -> Predictor:
        """Verify the bundle in ``folder`` and load it.

        Raises:
            BundleError: The bundle is missing, damaged or of another format.
        """
        return cls(load_bundle(folder), device, threads)

    def warm_up(self) -> None:
        """Run every path once on a made-up slice, so that the first caller does not wait for it."""
        compile_loops(self.meta.preprocessing)
        size = self.meta.preprocessing.size
        ramp = np.linspace(0, 1, size * size, dtype=np.float32).reshape(1, size, size)
        item = SliceInput(ramp, self.meta.preprocessing.modalities[:1])
        outcome = self.predict([item], PredictOptions(TASKS, n_mc_samples=1))[0]
        if isinstance(outcome, InputError):
            raise outcome

    def predict(
        self, items: Sequence[SliceInput], options: PredictOptions | None = None
    ) -> list[Prediction | InputError]:
        """Predict a batch; an item that is bad gets its error and the others their answers.

        Args:
            items: Slices of any sizes and modalities.
            options: What is asked for; classify and segment by default.
        """
        options = options or PredictOptions()
        start = time.perf_counter()
        outcomes: list[PreparedSlice | InputError] = []
        for item in items:
            try:
                prepared = prepare_slice(item.image, item.modalities, self.meta.preprocessing, item.pixel_mm)
                outcomes.append(prepared)
            except InputError as error:
                outcomes.append(error)
        good = [outcome for outcome in outcomes if isinstance(outcome, PreparedSlice)]
        middle = time.perf_counter()
        answers = iter(self._answer(good, options, (start, middle)) if good else [])
        return [outcome if isinstance(outcome, InputError) else next(answers) for outcome in outcomes]

    def _answer(
        self, prepared: list[PreparedSlice], options: PredictOptions, times: tuple[float, float]
    ) -> list[Prediction]:
        threshold = self.meta.calibration.threshold.value if options.threshold is None else options.threshold
        raw = self._run(np.stack([item.image for item in prepared]), options, threshold)
        networked = time.perf_counter()
        probabilities = self.meta.calibration.tumour.apply(raw.tumour)
        answers = [
            self._one(index, item, raw, float(probabilities[index]), threshold, options)
            for index, item in enumerate(prepared)
        ]
        timings = {
            "preprocess": 1e3 * (times[1] - times[0]),
            "network": 1e3 * (networked - times[1]),
            "postprocess": 1e3 * (time.perf_counter() - networked),
        }
        for answer in answers:
            answer.timings_ms.update(timings)
        return answers

    def _run(self, batch: NDArray[np.float16], options: PredictOptions, threshold: float) -> _Raw:
        """One encoder pass, and from its features whatever was asked for."""
        image = self.to_input(batch)
        regions, samples = {}, None
        wanted = "explain" in options.tasks
        traced = wanted and options.explain_method == "hirescam"
        with torch.inference_mode():
            features = trace_features(self.network, image) if traced else self.network.encoder(image)
            tumour = self.network.head(features[-1]).float().cpu().numpy()
            ood = self._ood.score(batch, pool_features(features)) if self._ood else None
            chosen = self._to_decode(tumour, options, threshold)
            if "segment" in options.tasks and chosen:
                maps = self.network.decoder([level[chosen] for level in features]).float().cpu().numpy()
                regions = dict(zip(chosen, maps, strict=True))
            # What no mask has ever taught is noise: its uncertainty says nothing.
            sampled = chosen if self._trained[WT] else []
            if "uncertainty" in options.tasks:
                plan = SamplingPlan(options.n_mc_samples, options.use_tta, (WT,))
                members = [Member(self.network, self.meta.calibration)]
                samples = draw_samples(members, image, plan, features, sampled)
        explained = explain(self.network, image, features, options.explain_method) if wanted else None
        return _Raw(tumour, regions, explained, samples, sampled, ood)

    def to_input(self, batch: NDArray[np.float16]) -> torch.Tensor:
        """Prepared slices ``[N, C, size, size]`` to the network's input tensor."""
        return place_image(torch.from_numpy(batch), self.device)

    def _to_decode(self, tumour: NDArray[np.float32], options: PredictOptions, threshold: float) -> list[int]:
        if not options.conditional:
            return list(range(len(tumour)))
        probability = self.meta.calibration.tumour.apply(tumour)
        return [int(index) for index in np.flatnonzero(probability >= threshold)]

    def _one(
        self,
        index: int,
        item: PreparedSlice,
        raw: _Raw,
        probability: float,
        threshold: float,
        options: PredictOptions,
    ) -> Prediction:
        """Calibrate one item's outputs and put its maps back into its own pixels."""
        regions = mask = gradcam = found = None
        if "segment" in options.tasks:
            regions = np.zeros((len(REGIONS), *item.geometry.frame), dtype=np.float32)
            if index in raw.regions:
                regions = restore_regions(
                    raw.regions[index], self.meta.calibration, item.geometry, item.foreground, self._trained
                )
            called = regions >= self.meta.calibration.region_threshold
            mask = self.meta.postprocess.apply_slice(called).astype(np.uint8)
        if raw.explained is not None:
            gradcam = restore_map(raw.explained[index], item.geometry) * item.foreground
        if raw.samples is not None:
            place = raw.sampled.index(index) if index in raw.sampled else None
            cut = self.meta.calibration.region_threshold
            found = describe_uncertainty(raw.samples, index, place, item.geometry, item.foreground, cut)
        ood = raw.ood[index] if raw.ood else None
        return Prediction(
            tumor_probability=probability,
            tumor_label=probability >= threshold,
            threshold=threshold,
            mask=mask,
            region_probability=regions,
            decoded=index in raw.regions,
            gradcam=gradcam,
            uncertainty=found.uncertainty if found else None,
            epistemic=found.epistemic if found else None,
            aleatoric=found.aleatoric if found else None,
            uncertainty_scores=found.scores if found else None,
            trained_regions=self.meta.trained_regions,
            decision=self.meta.calibration.decide(probability, threshold),
            ood_score=ood.score if ood else None,
            ood_flag=ood.flag if ood else None,
            ood_parts=ood.parts if ood else {},
        )
