"""Batches of slices to whole studies: while the network goes through a side, one study is in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from slicewise.evaluation.study_volume import StudyOutputs
from slicewise.inference.calibration import Calibration
from slicewise.inference.explain import ExplainMethod, explain
from slicewise.inference.sampling import Member, Samples, SamplingPlan, draw_samples
from slicewise.inference.uncertainty import Uncertainty
from slicewise.model.network import MultiTaskUNet
from slicewise.training.validate import Inferred


@dataclass(frozen=True)
class _Part:
    """A study's slices of one batch: fields of ``StudyOutputs``."""

    tumour: NDArray[np.float32]
    regions: NDArray[np.float32]
    entropy: NDArray[np.float32] | None
    measures: Uncertainty | None
    cams: NDArray[np.float16] | None


class StudyCollector:
    """Called with every batch of a side, in order; hands each study on when its last slice has come.

    Args:
        keys: The side's studies, in the order of the slices.
        calibration: For the uncertainty, which is of calibrated probabilities.
        consume: Takes a complete study.
        plan: How the uncertainty is sampled; None leaves it out.
        others: Further networks whose samples count with those of the one that is judged.
        explain_method: How the evidence for tumour is drawn; None leaves it out.
    """

    def __init__(
        self,
        keys: Sequence[str],
        calibration: Calibration,
        consume: Callable[[StudyOutputs], None],
        plan: SamplingPlan | None = None,
        others: Sequence[Member] = (),
        explain_method: ExplainMethod | None = None,
    ) -> None:
        self._keys = keys
        self._calibration = calibration
        self._plan = plan
        self._others = others
        self._consume = consume
        self._method = explain_method
        self._position = 0
        self._parts: list[_Part] = []

    def __call__(self, network: MultiTaskUNet, out: Inferred, start: int) -> None:
        """Take a batch."""
        assert out.features is not None
        assert out.regions is not None
        image = out.batch.image.to(out.features[0].device)
        cams = None
        if self._method is not None:
            cams = explain(network, image, out.features, self._method).astype(np.float16)
        samples = self._sample(network, image, out.features)
        for position in np.unique(out.batch.study):
            if position != self._position:
                self.finish()
                self._position = int(position)
            rows = np.flatnonzero(out.batch.study == position)
            tumour, regions = out.tumour.numpy()[rows], out.regions.numpy()[rows]
            shown = None if cams is None else cams[rows]
            self._parts.append(_Part(tumour, regions, *_measures(samples, rows), shown))

    def finish(self) -> None:
        """Hand on the study that is being gathered; call it when the last batch has come."""
        if not self._parts:
            return
        parts, self._parts = self._parts, []
        entropy = [part.entropy for part in parts if part.entropy is not None]
        measures = [part.measures for part in parts if part.measures is not None]
        cams = [part.cams for part in parts if part.cams is not None]
        self._consume(
            StudyOutputs(
                key=self._keys[self._position],
                tumour=np.concatenate([part.tumour for part in parts]),
                regions=np.concatenate([part.regions for part in parts]),
                uncertainty=np.concatenate(entropy) if entropy else None,
                tumour_uncertainty=Uncertainty.join(measures) if measures else None,
                cams=np.concatenate(cams) if cams else None,
            )
        )

    def _sample(self, network: MultiTaskUNet, image: Tensor, features: Sequence[Tensor]) -> Samples | None:
        if self._plan is None:
            return None
        samples = draw_samples([Member(network, self._calibration), *self._others], image, self._plan, features)
        samples.require_variance()
        return samples


def _measures(
    samples: Samples | None, rows: NDArray[np.intp]
) -> tuple[NDArray[np.float32] | None, Uncertainty | None]:
    """Entropy maps ``[rows, 3, H, W]`` and the tumour's measures of some slices."""
    if samples is None or samples.regions is None:
        return None, None
    return samples.regions.predictive_entropy[rows], samples.tumour.take(rows)
