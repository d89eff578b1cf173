"""Batches of slices to whole studies: while the network goes through a side, one study is in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slicewise.config import REGIONS
from slicewise.evaluation.study_volume import StudyOutputs
from slicewise.inference.calibration import Calibration
from slicewise.inference.explain import grad_cam
from slicewise.inference.sampling import Member, Samples, SamplingPlan, draw_samples
from slicewise.inference.uncertainty import Uncertainty
from slicewise.model.network import MultiTaskUNet
from slicewise.training.validate import Inferred

ALL_REGIONS = tuple(range(len(REGIONS)))


@dataclass(frozen=True)
class _Part:
    """A study's slices of one batch: fields of ``StudyOutputs``, the measures in the order of ``Uncertainty``."""

    tumour: NDArray[np.float32]
    regions: NDArray[np.float32]
    entropy: NDArray[np.float32] | None
    measures: NDArray[np.float32] | None
    cams: NDArray[np.float16]


class StudyCollector:
    """Called with every batch of a side, in order; hands each study on when its last slice has come.

    Args:
        keys: The side's studies, in the order of the slices.
        calibration: For the uncertainty, which is of calibrated probabilities.
        mc_samples: Monte-Carlo dropout samples per slice; 0 leaves the uncertainty out.
        consume: Takes a complete study.
    """

    def __init__(
        self, keys: Sequence[str], calibration: Calibration, mc_samples: int, consume: Callable[[StudyOutputs], None]
    ) -> None:
        self._keys = keys
        self._calibration = calibration
        self._plan = SamplingPlan(mc_samples, regions=ALL_REGIONS) if mc_samples else None
        self._consume = consume
        self._position = 0
        self._parts: list[_Part] = []

    def __call__(self, network: MultiTaskUNet, out: Inferred, start: int) -> None:
        """Take a batch."""
        assert out.features is not None
        assert out.regions is not None
        head = (out.batch.image != 0).any(dim=1).to(out.features[-1].device)
        cams = grad_cam(network, out.features[-1], head).astype(np.float16)
        samples = self._sample(network, out)
        for position in np.unique(out.batch.study):
            if position != self._position:
                self.finish()
                self._position = int(position)
            rows = np.flatnonzero(out.batch.study == position)
            tumour, regions = out.tumour.numpy()[rows], out.regions.numpy()[rows]
            self._parts.append(_Part(tumour, regions, *_measures(samples, rows), cams[rows]))

    def finish(self) -> None:
        """Hand on the study that is being gathered; call it when the last batch has come."""
        if not self._parts:
            return
        parts, self._parts = self._parts, []
        entropy = [part.entropy for part in parts if part.entropy is not None]
        measures = [part.measures for part in parts if part.measures is not None]
        self._consume(
            StudyOutputs(
                key=self._keys[self._position],
                tumour=np.concatenate([part.tumour for part in parts]),
                regions=np.concatenate([part.regions for part in parts]),
                uncertainty=np.concatenate(entropy) if entropy else None,
                tumour_uncertainty=Uncertainty(*np.concatenate(measures, axis=1)) if measures else None,
                cams=np.concatenate([part.cams for part in parts]),
            )
        )

    def _sample(self, network: MultiTaskUNet, out: Inferred) -> Samples | None:
        if self._plan is None or out.features is None:
            return None
        image = out.batch.image.to(out.features[0].device)
        return draw_samples([Member(network, self._calibration)], image, self._plan, out.features)


def _measures(
    samples: Samples | None, rows: NDArray[np.intp]
) -> tuple[NDArray[np.float32] | None, NDArray[np.float32] | None]:
    """Entropy maps ``[rows, 3, H, W]`` and the tumour's measures ``[4, rows]`` of some slices."""
    if samples is None or samples.regions is None:
        return None, None
    tumour = samples.tumour
    measures = (tumour.mean, tumour.predictive_entropy, tumour.expected_entropy, tumour.mutual_information)
    return samples.regions.predictive_entropy[rows], np.stack(measures)[:, rows]
