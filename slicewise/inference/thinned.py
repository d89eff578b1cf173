"""A network under dropout masks that are drawn beforehand: samples of it that can run in one batch.

A sample is one thinned network (Gal and Ghahramani, "Dropout as a Bayesian approximation", ICML 2016): its masks come
from a seed, not from what is in the batch, and are the same for every slice. So a slice gets the same answer whatever
its batch mates are, and the slices of a study are judged by the same networks.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from slicewise.inference.sample_decoder import SampleDecoder
from slicewise.model.network import MultiTaskUNet


class FixedDropout(nn.Module):
    """Dropout by given masks.

    Args:
        dropout: What it stands for: the rate, and whether whole channels are dropped.
        n_samples: How many masks.
        seed: Of the masks.

    Attributes:
        rows: ``[B]``: the mask of each item of the batch that comes next.
    """

    def __init__(self, dropout: nn.Dropout | nn.Dropout2d, n_samples: int, seed: int) -> None:
        super().__init__()
        self.rate = dropout.p
        self.whole_channels = isinstance(dropout, nn.Dropout2d)
        self.n_samples = n_samples
        self.seed = seed
        self.rows = torch.zeros(0, dtype=torch.long)
        self._masks: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, ...]`` with what ``rows`` says dropped, and the rest made up for it."""
        return x * self.masks(x)[self.rows]

    def masks(self, x: Tensor) -> Tensor:
        """``[n_samples, C, ...]``: those for data like ``x``."""
        if self._masks is None:
            self._masks = self._draw(x).to(x.device, x.dtype)
        return self._masks

    def _draw(self, x: Tensor) -> Tensor:
        shape = [x.shape[1], *[1] * (x.dim() - 2)] if self.whole_channels else x.shape[1:]
        # On the CPU, so that every device drops the same.
        generator = torch.Generator().manual_seed(self.seed)
        kept = torch.rand((self.n_samples, *shape), generator=generator) >= self.rate
        return kept / (1 - self.rate)


class ThinnedNetwork:
    """Head and decoder of a network with ``FixedDropout``; the network itself stays as it is.

    All dropout lies behind the encoder, so its features are computed once for all samples.

    Args:
        network: In evaluation mode; its weights are shared.
        n_samples: How many samples.
        seed: Of the masks.
    """

    def __init__(self, network: MultiTaskUNet, n_samples: int, seed: int) -> None:
        self._dropouts: list[FixedDropout] = []
        self._network = cast("MultiTaskUNet", self._thin(network, n_samples, seed))

    def _thin(self, module: nn.Module, n_samples: int, seed: int) -> nn.Module:
        """The module itself, or where it holds dropout a shallow copy with that replaced."""
        if isinstance(module, nn.Dropout | nn.Dropout2d) and module.p > 0:
            self._dropouts.append(FixedDropout(module, n_samples, seed + len(self._dropouts)))
            return self._dropouts[-1]
        children = {name: self._thin(child, n_samples, seed) for name, child in module.named_children()}
        changed = {name: child for name, child in children.items() if child is not module._modules[name]}
        if not changed:
            return module
        thinned = copy.copy(module)
        # A copy shares its original's table of children: it needs one of its own before one is replaced.
        thinned._modules = {**module._modules, **changed}
        return thinned

    @property
    def varies(self) -> bool:
        """Whether there is any dropout; without it all samples are the same."""
        return bool(self._dropouts)

    def tumour(self, bottleneck: Tensor, rows: range) -> Tensor:
        """Tumour logits ``[N, R]`` of ``N`` slices, from their bottleneck features, under the samples ``rows``."""
        logits = self._network.from_features([self._spread(bottleneck, rows)], segment=False).tumour
        return torch.unflatten(logits, 0, (len(bottleneck), len(rows)))

    def regions(self, features: Sequence[Tensor], parts: Sequence[range]) -> Iterator[Tensor]:
        """Region logits ``[G, R, 3, H, W]`` of ``G`` slices under the samples of each part, one part at a time.

        Args:
            features: The encoder's, finest first.
            parts: The samples.
        """
        decode = SampleDecoder(self._network.decoder, features)
        for rows in parts:
            bottleneck = self._network.dropout(self._spread(features[-1], rows))
            yield torch.unflatten(decode(bottleneck, len(rows)), 0, (len(features[-1]), len(rows)))

    def decoder_masks(self, widths: Sequence[int], row: int) -> list[Tensor]:
        """One sample's masks ``[1, C, 1, 1]``, of the bottleneck and of the decoder's levels that have dropout.

        Args:
            widths: Their channels.
            row: The sample.
        """
        places = [self._network.dropout, *self._network.decoder.dropouts]
        dropouts = [place for place in places if isinstance(place, FixedDropout)]
        pairs = zip(dropouts, widths, strict=True)
        return [dropout.masks(torch.empty(1, width, 1, 1))[row : row + 1] for dropout, width in pairs]

    def _spread(self, bottleneck: Tensor, rows: range) -> Tensor:
        """Each slice once per sample, and every dropout told which sample comes where."""
        places = torch.tensor(rows, device=bottleneck.device).repeat(len(bottleneck))
        for dropout in self._dropouts:
            dropout.rows = places
        return bottleneck.repeat_interleave(len(rows), dim=0)
