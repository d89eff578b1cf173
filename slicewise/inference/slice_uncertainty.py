"""A slice's uncertainty as it leaves the Predictor: maps in the slice's own pixels, and figures of the slice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slicewise.inference.sampling import Samples
from slicewise.inference.uncertainty import Floats, Uncertainty
from slicewise.slices.crop import SliceGeometry, restore_map


@dataclass(frozen=True)
class OutputUncertainty:
    """Of the probability that the slice shows tumour; entropies in nats.

    Attributes:
        mean_probability: Over the samples. The answer's own probability is the whole network's, without dropout.
        std: Standard deviation over the samples.
        predictive_entropy: Of the mean.
        mutual_information: Epistemic.
        expected_entropy: Aleatoric.
    """

    mean_probability: float
    std: float
    predictive_entropy: float
    mutual_information: float
    expected_entropy: float


@dataclass(frozen=True)
class AreaUncertainty:
    """Mean of the whole-tumour maps over an area, in nats.

    Attributes:
        pixels: The area.
        predictive_entropy: All of it.
        mutual_information: Epistemic.
        expected_entropy: Aleatoric.
    """

    pixels: int
    predictive_entropy: float
    mutual_information: float
    expected_entropy: float


@dataclass(frozen=True)
class UncertaintyScores:
    """Figures of one slice.

    Attributes:
        tumour: Of the classification output.
        head: Mean over the head; None where the decoder did not run or the whole tumour was never taught.
        predicted: Mean over the pixels that the samples' mean probability calls tumour; None where there are none.
        sources: What made the samples differ: some of ``dropout``, ``mirror``. Empty: nothing did, and
            ``mutual_information`` is 0 for that reason.
    """

    tumour: OutputUncertainty
    head: AreaUncertainty | None
    predicted: AreaUncertainty | None
    sources: tuple[str, ...]


@dataclass(frozen=True)
class SliceUncertainty:
    """Maps ``[H, W]`` of the whole tumour in nats, 0 outside the head, and the figures."""

    uncertainty: Floats
    epistemic: Floats
    aleatoric: Floats
    scores: UncertaintyScores


def describe_uncertainty(
    samples: Samples,
    item: int,
    place: int | None,
    geometry: SliceGeometry,
    head: NDArray[np.bool_],
    region_threshold: float,
) -> SliceUncertainty:
    """One slice of a batch of samples.

    Args:
        samples: Of the batch; the first of its regions is the whole tumour.
        item: The slice's position in the batch.
        place: Its position among the slices whose maps were made; None where it is not one of them: its maps are 0.
        geometry: Where the network's square lies in the slice.
        head: ``[H, W]``.
        region_threshold: From which mean probability on a pixel counts as tumour.
    """
    tumour = _of_output(samples, item)
    if place is None or samples.regions is None:
        nothing = np.zeros(geometry.frame, dtype=np.float32)
        return SliceUncertainty(nothing, nothing, nothing, UncertaintyScores(tumour, None, None, samples.sources))
    maps: Uncertainty = samples.regions
    epistemic = restore_map(maps.mutual_information[place, 0], geometry) * head
    aleatoric = restore_map(maps.expected_entropy[place, 0], geometry) * head
    predicted = (restore_map(maps.mean[place, 0], geometry) >= region_threshold) & head
    in_head, in_predicted = (_of_area(epistemic, aleatoric, area) for area in (head, predicted))
    scores = UncertaintyScores(tumour, in_head, in_predicted, samples.sources)
    return SliceUncertainty(epistemic + aleatoric, epistemic, aleatoric, scores)


def _of_output(samples: Samples, item: int) -> OutputUncertainty:
    found = samples.tumour
    return OutputUncertainty(
        float(found.mean[item]),
        float(samples.tumour_std[item]),
        float(found.predictive_entropy[item]),
        float(found.mutual_information[item]),
        float(found.expected_entropy[item]),
    )


def _of_area(epistemic: Floats, aleatoric: Floats, area: NDArray[np.bool_]) -> AreaUncertainty | None:
    pixels = int(np.count_nonzero(area))
    if not pixels:
        return None
    parts = float(epistemic[area].mean()), float(aleatoric[area].mean())
    return AreaUncertainty(pixels, sum(parts), *parts)
