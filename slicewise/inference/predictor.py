"""The Predictor: preprocessing, one encoder pass, calibration, and maps in the slice's own pixels.

The same object runs behind TorchServe, inside the gateway, in ``slicewise predict`` and in evaluation.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from slicewise.config import REGIONS, PredictorSettings
from slicewise.config.predictor import PLAIN
from slicewise.cpus import available_cpus
from slicewise.errors import InputError
from slicewise.inference.bundle import Bundle, load_bundle
from slicewise.inference.engines.choose import Site
from slicewise.inference.engines.openvino_engine import OpenVinoEngine
from slicewise.inference.explain import explain, trace_features
from slicewise.inference.ood import OodScore
from slicewise.inference.probe import choose_engine
from slicewise.inference.restore import restore_regions, trained_mask
from slicewise.inference.sampling import Member, Samples, SamplingPlan, draw_samples
from slicewise.inference.slice_records import MAX_MC_SAMPLES, TASKS, Prediction, PredictOptions, SliceInput
from slicewise.inference.slice_statistics import pool_features
from slicewise.inference.slice_uncertainty import describe_uncertainty
from slicewise.model.device import choose_device, place_image, place_network
from slicewise.slices.crop import restore_map
from slicewise.slices.transform import PreparedSlice, compile_loops, prepare_slice

__all__ = ["MAX_MC_SAMPLES", "TASKS", "PredictOptions", "Prediction", "Predictor", "SliceInput"]

WT = REGIONS.index("WT")


def _threads(settings: PredictorSettings | None) -> int | None:
    if settings is None:
        return None
    return available_cpus() if settings.threads == "auto" else settings.threads


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
        threads: CPU threads; None leaves it to ``settings``.
        settings: How the network is run; None: by torch in float32, on torch's own number of threads, unmeasured.
        probe_folder: Where the start-up probe keeps its result for the next start; None keeps none.

    Attributes:
        network: Torch's; what needs gradients or samples goes through it, whatever the engine is.
        engine: What computes encoder and decoder.
        probe: Which engine was chosen, and why.
    """

    def __init__(
        self,
        bundle: Bundle,
        device: str = "auto",
        threads: int | None = None,
        settings: PredictorSettings | None = None,
        probe_folder: Path | None = None,
    ) -> None:
        threads = _threads(settings) if threads is None else threads
        if threads is not None:
            torch.set_num_threads(threads)
        self.device = choose_device(device)
        self.bundle = bundle
        self.meta = bundle.meta
        self.network = place_network(bundle.network(), self.device).requires_grad_(False)
        self._settings = settings or PLAIN
        self._ood = bundle.ood(self.network)
        self._trained = trained_mask(bundle.meta.trained_regions)
        site = Site(self.network, self.device, self.meta.preprocessing.size, torch.get_num_threads())
        self.engine, self.probe = choose_engine(site, self._settings, probe_folder)

    @classmethod
    def load(
        cls,
        folder: Path,
        device: str = "auto",
        threads: int | None = None,
        settings: PredictorSettings | None = None,
        probe_folder: Path | None = None,
    ) -> Predictor:
        """Verify the bundle in ``folder`` and load it; the arguments are the Predictor's.

        Raises:
            BundleError: The bundle is missing, damaged or of another format.
        """
        return cls(load_bundle(folder), device, threads, settings, probe_folder)

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
            features = trace_features(self.network, image) if traced else self.engine.features(image)
            tumour = self.network.head(features[-1]).float().cpu().numpy()
            ood = self._ood.score(batch, pool_features(features)) if self._ood else None
            chosen = self._to_decode(tumour, options, threshold)
            if "segment" in options.tasks and chosen:
                whole = len(chosen) == len(batch)
                picked = features if whole else [level[chosen] for level in features]
                maps = self.engine.regions(picked).cpu().numpy()
                regions = dict(zip(chosen, maps, strict=True))
            # What no mask has ever taught is noise: its uncertainty says nothing.
            sampled = chosen if self._trained[WT] else []
            if "uncertainty" in options.tasks:
                plan = SamplingPlan(options.n_mc_samples, options.use_tta, (WT,))
                engine = self.engine if isinstance(self.engine, OpenVinoEngine) else None
                members = [Member(self.network, self.meta.calibration, engine)]
                samples = draw_samples(members, image, plan, features, sampled)
        explained = explain(self.network, image, features, options.explain_method) if wanted else None
        return _Raw(tumour, regions, explained, samples, sampled, ood)

    def to_input(self, batch: NDArray[np.float16]) -> torch.Tensor:
        """Prepared slices ``[N, C, size, size]`` to the network's input tensor."""
        image = torch.from_numpy(batch)
        if self.device.type == "cuda" and self._settings.pinned_memory:
            image = image.pin_memory()
        return place_image(image, self.device)

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
