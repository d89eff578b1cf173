"""The Predictor: preprocessing, one encoder pass, calibration, and maps in the slice's own pixels.

The same object runs behind TorchServe, inside the gateway, in ``slicewise predict`` and in evaluation.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from slicewise.config import REGIONS
from slicewise.errors import InputError
from slicewise.inference.bundle import Bundle, load_bundle
from slicewise.inference.explain import grad_cam
from slicewise.inference.uncertainty import predictive_entropy
from slicewise.model.device import choose_device, place_image, place_network
from slicewise.slices.crop import restore_map
from slicewise.slices.transform import PreparedSlice, compile_loops, prepare_slice

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
        n_mc_samples: Monte-Carlo dropout samples for ``uncertainty``.
    """

    tasks: tuple[str, ...] = ("classify", "segment")
    threshold: float | None = None
    conditional: bool = False
    n_mc_samples: int = 10

    def __post_init__(self) -> None:
        unknown = [task for task in self.tasks if task not in TASKS]
        if unknown or not self.tasks:
            raise InputError(f"tasks: {unknown or 'none given'}", f"use some of {', '.join(TASKS)}")
        if self.threshold is not None and not 0.0 <= self.threshold <= 1.0:
            raise InputError(f"threshold: {self.threshold} is not a probability", "use a number from 0 to 1")
        if not 1 <= self.n_mc_samples <= MAX_MC_SAMPLES:
            raise InputError(f"n_mc_samples: {self.n_mc_samples}", f"use 1 to {MAX_MC_SAMPLES}")


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
        gradcam: ``[H, W]`` float32 in 0..1, inside the head; None when not asked for.
        uncertainty: ``[H, W]`` float32, predictive entropy of WT in nats; None when not asked for.
        trained_regions: The regions that the model was taught; the others' maps are empty.
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
    trained_regions: tuple[str, ...] = ()
    timings_ms: dict[str, float] = field(default_factory=dict)


@dataclass
class _Raw:
    """Network outputs of a batch, as arrays at the network's size."""

    tumour: NDArray[np.float32]
    regions: dict[int, NDArray[np.float32]]
    gradcam: NDArray[np.float32] | None
    uncertainty: dict[int, NDArray[np.float32]]


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
        trained = [name in bundle.meta.trained_regions for name in REGIONS]
        self._trained = np.array(trained, dtype=np.float32)
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
        probabilities = sigmoid(raw.tumour / self.meta.calibration.tumour.temperature)
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
        with torch.inference_mode():
            features = self.network.encoder(self.to_input(batch))
            tumour = self.network.head(features[-1]).float().cpu().numpy()
            chosen = self._to_decode(tumour, options, threshold)
            picked = [level[chosen] for level in features]
            regions, uncertainty = {}, {}
            if "segment" in options.tasks and chosen:
                maps = self.network.decoder(picked).float().cpu().numpy()
                regions = dict(zip(chosen, maps, strict=True))
            if "uncertainty" in options.tasks and chosen:
                maps = predictive_entropy(
                    self.network,
                    picked,
                    options.n_mc_samples,
                    self.meta.calibration.regions["WT"].temperature,
                )
                uncertainty = dict(zip(chosen, maps, strict=True))
        explained = grad_cam(self.network, features[-1]) if "explain" in options.tasks else None
        return _Raw(tumour, regions, explained, uncertainty)

    def to_input(self, batch: NDArray[np.float16]) -> torch.Tensor:
        """Prepared slices ``[N, C, size, size]`` to the network's input tensor."""
        return place_image(torch.from_numpy(batch), self.device)

    def _to_decode(self, tumour: NDArray[np.float32], options: PredictOptions, threshold: float) -> list[int]:
        if not options.conditional:
            return list(range(len(tumour)))
        probability = sigmoid(tumour / self.meta.calibration.tumour.temperature)
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
        regions = mask = gradcam = uncertainty = None
        if "segment" in options.tasks:
            regions = np.zeros((len(REGIONS), *item.geometry.frame), dtype=np.float32)
            if index in raw.regions:
                regions = np.stack(
                    [
                        restore_map(sigmoid(plane / self.meta.calibration.regions[name].temperature), item.geometry)
                        for name, plane in zip(REGIONS, raw.regions[index], strict=True)
                    ]
                )
            # Outside the head there is no tumour; and the crop's border must not bleed into the padding.
            regions *= item.foreground
            # What no mask has ever taught is noise, however sure it looks.
            regions *= self._trained[:, None, None]
            mask = (regions >= self.meta.calibration.region_threshold).astype(np.uint8)
        if raw.gradcam is not None:
            gradcam = restore_map(raw.gradcam[index], item.geometry) * item.foreground
        if "uncertainty" in options.tasks:
            uncertainty = np.zeros(item.geometry.frame, dtype=np.float32)
            if index in raw.uncertainty:
                uncertainty = restore_map(raw.uncertainty[index], item.geometry) * item.foreground
        decoded = index in raw.regions
        label = probability >= threshold
        trained = self.meta.trained_regions
        return Prediction(probability, label, threshold, mask, regions, decoded, gradcam, uncertainty, trained)


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logistic function without overflow, in float32."""
    probability: NDArray[np.float32] = (0.5 * (1.0 + np.tanh(0.5 * logits))).astype(np.float32)
    return probability
