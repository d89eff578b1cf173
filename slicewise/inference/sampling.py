"""Samples of what might have been said of a slice: by thinned networks, of its mirror image, by several networks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from slicewise.errors import BundleError
from slicewise.inference.calibration import Calibration
from slicewise.inference.region_sums import RegionSums
from slicewise.inference.thinned import ThinnedNetwork
from slicewise.inference.uncertainty import Floats, Uncertainty
from slicewise.model.network import MultiTaskUNet

# Pixels of a decoder's batch, which bounds memory: larger ones leave the caches (``benchmarks/uncertainty.py``).
CHUNK_PIXELS = 10 * 96 * 96
# Values of the head's batch.
HEAD_VALUES = 8_000_000


class MaskedEngine(Protocol):
    """An engine that decodes under given dropout masks (``slicewise.inference.engines``)."""

    mask_widths: tuple[int, ...]

    def features(self, image: Tensor) -> list[Tensor]:
        """Encoder features."""
        ...

    def masked_regions(self, features: Sequence[Tensor], masks: Sequence[Tensor]) -> Tensor:
        """Region logits under one sample's masks."""
        ...


@dataclass(frozen=True)
class Member:
    """One network of an ensemble, what calibrates it, and what runs it where that is not torch."""

    network: MultiTaskUNet
    calibration: Calibration
    engine: MaskedEngine | None = None

    def features(self, image: Tensor) -> Sequence[Tensor]:
        """Encoder features of ``[N, C, H, W]``."""
        return self.network.encoder(image) if self.engine is None else self.engine.features(image)


@dataclass(frozen=True)
class SamplingPlan:
    """How samples are drawn.

    Attributes:
        n_samples: Dropout samples in all, shared out over members and views: each of these gets at least one, and
            all weigh the same.
        mirror: Test-time augmentation: show every slice mirrored left to right, too.
        regions: Which regions' maps are made, as positions in ``REGIONS``.
        seed: Of the dropout masks.
    """

    n_samples: int = 10
    mirror: bool = False
    regions: tuple[int, ...] = (0,)
    seed: int = 0


@dataclass(frozen=True)
class Samples:
    """Calibrated probabilities of a batch under all samples.

    Attributes:
        weights: ``[S]``, adding up to 1.
        tumour_samples: ``[S, N]``.
        tumour: Measures ``[N]`` of them.
        regions: Measures ``[n, R, H, W]`` of the slices and regions asked for; None where no slice was.
        sources: What made the samples differ: some of ``dropout``, ``mirror``, ``ensemble``. Where there is none, the
            epistemic part is 0 because nothing was tried, not because the network is sure.
        varied: Whether the raw logits of any slice did differ: the tumour's, then each region's.
    """

    weights: Floats
    tumour_samples: Floats
    tumour: Uncertainty
    regions: Uncertainty | None
    sources: tuple[str, ...]
    varied: tuple[bool, ...]

    @property
    def tumour_std(self) -> Floats:
        """``[N]`` standard deviation of the tumour probability over the samples."""
        squares = (self.tumour_samples - self.tumour.mean) ** 2
        deviation: Floats = np.sqrt(np.tensordot(self.weights, squares, 1))
        return deviation

    def require_variance(self) -> None:
        """Refuse samples that should differ and do not: their epistemic uncertainty would be a false 0.

        Logits are what is looked at: sure probabilities may all round to 0 or 1.

        Raises:
            BundleError: Something was varied, and all samples of an output are the same in every slice.
        """
        if self.sources and not all(self.varied):
            raise BundleError(
                f"samples by {' and '.join(self.sources)} are all the same, so they tell nothing of uncertainty",
                "train again with a higher model.dropout, or ask for more samples",
            )


@dataclass(frozen=True)
class _Part:
    """The samples of one member and view.

    Attributes:
        rows: The samples' masks.
        weight: Of each sample.
    """

    thinned: ThinnedNetwork
    member: Member
    features: Sequence[Tensor]
    mirrored: bool
    rows: range
    weight: float


def draw_samples(
    members: Sequence[Member],
    image: Tensor,
    plan: SamplingPlan,
    features: Sequence[Tensor] | None = None,
    decode: Sequence[int] | None = None,
) -> Samples:
    """Sample a batch: one encoder pass per member and view, then heads and decoders in batches of many samples.

    Several members: Lakshminarayanan et al., "Simple and scalable predictive uncertainty estimation using deep
    ensembles", NeurIPS 2017. The mirrored view: Wang et al., "Aleatoric uncertainty estimation with test-time
    augmentation", Neurocomputing 2019.

    Args:
        members: At least one; networks of the same preprocessing in evaluation mode.
        image: ``[N, C, H, W]``, the networks' input.
        plan: How many samples, and of what.
        features: Those of the first member's encoder for ``image``, where they are known.
        decode: The slices whose region maps are wanted; None for all, empty for none.
    """
    chosen = list(range(len(image)) if decode is None else decode)
    tumour: list[Floats] = []
    logits: list[Floats] = []
    masks: set[int] = set()
    sums = RegionSums(len(chosen), plan.regions, image.shape[2:])
    weights: list[float] = []
    with torch.inference_mode():
        for part in _parts(members, image, plan, features):
            logits.append(_tumour_logits(part))
            tumour.append(part.member.calibration.tumour.apply(logits[-1]))
            weights += [part.weight] * len(part.rows)
            masks.update(part.rows if part.thinned.varies else ())
            if part.member.engine is None:
                _add_regions(part, chosen, sums)
            else:
                _add_masked(part, part.member.engine, chosen, sums)
    found, weight = np.concatenate(tumour), np.array(weights, dtype=np.float32)
    there = {"dropout": len(masks) > 1, "mirror": plan.mirror, "ensemble": len(members) > 1}
    return Samples(
        weight,
        found,
        Uncertainty.of_samples(found, weight),
        sums.uncertainty if chosen else None,
        tuple(name for name, used in there.items() if used),
        (bool(np.ptp(np.concatenate(logits), axis=0).any()), *(sums.varied if chosen else ())),
    )


def _parts(
    members: Sequence[Member], image: Tensor, plan: SamplingPlan, features: Sequence[Tensor] | None
) -> Iterator[_Part]:
    views = (False, True) if plan.mirror else (False,)
    n_parts = len(members) * len(views)
    ends = [max(at, at * plan.n_samples // n_parts) for at in range(n_parts + 1)]
    thinned = [ThinnedNetwork(member.network, ends[-1], plan.seed) for member in members]
    pairs = [(at, mirrored) for at in range(len(members)) for mirrored in views]
    for place, (at, mirrored) in enumerate(pairs):
        known = features if place == 0 else None
        seen = members[at].features(image.flip(3) if mirrored else image) if known is None else known
        rows = range(ends[place], ends[place + 1] if thinned[at].varies else ends[place] + 1)
        yield _Part(thinned[at], members[at], seen, mirrored, rows, 1 / (n_parts * len(rows)))


def _tumour_logits(part: _Part) -> Floats:
    """Raw logits ``[samples, N]``."""
    bottleneck = part.features[-1]
    steps = _steps(part.rows, max(1, HEAD_VALUES // bottleneck.numel()))
    logits = torch.cat([part.thinned.tumour(bottleneck, rows) for rows in steps], dim=1)
    return logits.T.float().cpu().numpy()


def _add_regions(part: _Part, chosen: Sequence[int], sums: RegionSums) -> None:
    """Decode a part's samples of the chosen slices, in batches of a bounded size."""
    height, width = part.features[0].shape[2:]
    chunk = max(1, CHUNK_PIXELS // (height * width))
    for start in range(0, len(chosen), chunk):
        group = slice(start, start + chunk)
        features = [level[chosen[group]] for level in part.features]
        steps = _steps(part.rows, max(1, chunk // len(features[-1])))
        for logits in part.thinned.regions(features, steps):
            maps = logits.flip(4) if part.mirrored else logits
            sums.add(group, maps.float().cpu().numpy(), part.weight, part.member.calibration)


def _add_masked(part: _Part, engine: MaskedEngine, chosen: Sequence[int], sums: RegionSums) -> None:
    """The same by an engine: a sample's masks are those of all slices, so a batch is one sample of each."""
    if not chosen:
        return
    features = [level[chosen] for level in part.features]
    for row in part.rows:
        logits = engine.masked_regions(features, part.thinned.decoder_masks(engine.mask_widths, row))
        maps = logits.flip(3) if part.mirrored else logits
        sums.add(slice(0, len(chosen)), maps[:, None].numpy(), part.weight, part.member.calibration)


def _steps(rows: range, length: int) -> list[range]:
    return [rows[start : start + length] for start in range(0, len(rows), length)]
