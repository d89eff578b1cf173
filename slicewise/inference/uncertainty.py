"""What samples of a probability say about its uncertainty.

Predictive entropy is all of it. Its expected part over the samples remains however well the network is known
(aleatoric: blurred borders, noise). The rest is the mutual information between the output and the network (epistemic:
the samples disagree). After Houlsby et al., "Bayesian active learning for classification and preference learning",
2011, and Kendall and Gal, "What uncertainties do we need in Bayesian deep learning for computer vision?", NeurIPS
2017.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr

Floats = NDArray[np.float32]


def binary_entropy(probability: Floats) -> Floats:
    """Entropy in nats of an output that is true with this probability: 0 (sure) to ln 2, also at 0 and 1."""
    entropy: Floats = entr(probability) + entr(1 - probability)
    return entropy


@dataclass(frozen=True)
class Uncertainty:
    """Measures of one output; arrays of one shape, in nats but for the mean.

    Attributes:
        mean: Mean probability over the samples.
        predictive_entropy: Entropy of the mean.
        expected_entropy: Mean entropy of the samples: aleatoric.
        mutual_information: The difference, never below 0: epistemic; 0 where all samples agree.
    """

    mean: Floats
    predictive_entropy: Floats
    expected_entropy: Floats
    mutual_information: Floats

    @classmethod
    def join(cls, parts: Sequence[Uncertainty]) -> Uncertainty:
        """The measures of several sets of outputs, one after the other along the first axis; at least one set."""
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))

    def take(self, rows: NDArray[np.intp]) -> Uncertainty:
        """The measures of some of the outputs, by their place along the first axis."""
        return Uncertainty(*(getattr(self, field.name)[rows] for field in fields(self)))

    @classmethod
    def of_means(cls, mean: Floats, expected_entropy: Floats) -> Uncertainty:
        """The measures of a mean probability and a mean entropy, of any shape."""
        # Sums of weighted samples may pass 1 by rounding, where there is no entropy.
        mean = np.clip(mean, 0, 1)
        whole = binary_entropy(mean)
        # Rounding leaves differences of some 1e-8 below 0.
        return cls(mean, whole, expected_entropy, np.maximum(whole - expected_entropy, np.float32(0)))

    @classmethod
    def of_samples(cls, samples: Floats, weights: Floats) -> Uncertainty:
        """The measures of samples ``[S, ...]`` with weights ``[S]`` that add up to 1."""
        return cls.of_means(np.tensordot(weights, samples, 1), np.tensordot(weights, binary_entropy(samples), 1))
